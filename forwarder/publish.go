package forwarder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/usernet/usernet/stack"
)

// Mapping asks for published ports. Ends of 0 mean single ports; a HostPort of 0 means a free one.
type Mapping struct {
	HostIP            netip.Addr // zero: all addresses of both families
	HostPort, HostEnd uint16
	Port, End         uint16
	Proto             string
}

// Bound is one published port as it is bound.
type Bound struct {
	Host  netip.AddrPort
	Port  uint16
	Proto string
}

// BindError says why a host port could not be had; its text is Docker's, and what to do.
type BindError struct {
	Host netip.AddrPort
	Err  error
}

// Error is the text for the user.
func (e *BindError) Error() string {
	text := fmt.Sprintf("Bind for %s failed: ", e.Host)
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return text + "port is already allocated"
	case errors.Is(e.Err, syscall.EACCES):
		return text + "permission denied: ports below net.ipv4.ip_unprivileged_port_start are not for this user; use a higher port, or as root: sysctl net.ipv4.ip_unprivileged_port_start=" + fmt.Sprint(e.Host.Port())
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		return text + "the host does not have this address"
	case errors.Is(e.Err, syscall.EMFILE), errors.Is(e.Err, syscall.ENFILE):
		return text + "no more open files are allowed: raise the hard limit (ulimit -Hn) before the daemon starts"
	}
	return text + e.Err.Error()
}

// Unwrap is the cause.
func (e *BindError) Unwrap() error { return e.Err }

type portKey struct {
	host  netip.AddrPort
	proto string
}

// published is one bound host port.
type published struct {
	f        *Forwarder
	bound    Bound
	in4, in6 netip.Addr
	ln       *net.TCPListener
	pc       *net.UDPConn
	once     sync.Once
	done     chan struct{}
	mu       sync.Mutex
	clients  map[netip.AddrPort]netip.AddrPort // UDP: who a container's view of a client is
}

// Publish binds all of ports, or with an error none.
func (f *Forwarder) Publish(_ context.Context, in4, in6 netip.Addr, ports []Mapping) ([]Bound, error) {
	var made []*published
	undo := func() {
		for _, p := range made {
			f.unbind(p)
		}
	}
	for _, m := range ports {
		list, err := f.bindMapping(in4, in6, m)
		made = append(made, list...)
		if err != nil {
			undo()
			return nil, err
		}
	}
	out := make([]Bound, len(made))
	for i, p := range made {
		out[i] = p.bound
	}
	return out, nil
}

func (f *Forwarder) bindMapping(in4, in6 netip.Addr, m Mapping) ([]*published, error) {
	if m.Proto == "sctp" {
		return nil, errors.New("SCTP ports cannot be published: unprivileged host sockets cannot carry SCTP; publish TCP or UDP")
	}
	var made []*published
	count := int(max(m.End, m.Port)-m.Port) + 1
	hosts := int(max(m.HostEnd, m.HostPort)-m.HostPort) + 1
	for i := range count {
		port := m.Port + uint16(i)
		switch {
		case m.HostPort == 0:
			list, err := f.bindFree(in4, in6, m.HostIP, port, m.Proto)
			made = append(made, list...)
			if err != nil {
				return made, err
			}
		case count == 1 && hosts > 1:
			var err error
			for h := range hosts {
				var list []*published
				if list, err = f.bind(in4, in6, m.HostIP, m.HostPort+uint16(h), port, m.Proto); err == nil {
					return append(made, list...), nil
				}
				if !errors.Is(err, syscall.EADDRINUSE) {
					break
				}
			}
			return made, err
		default:
			list, err := f.bind(in4, in6, m.HostIP, m.HostPort+uint16(i), port, m.Proto)
			made = append(made, list...)
			if err != nil {
				return made, err
			}
		}
	}
	return made, nil
}

// bindFree draws host ports from net.ipv4.ip_local_port_range until one is free in all families.
func (f *Forwarder) bindFree(in4, in6, hostIP netip.Addr, port uint16, proto string) ([]*published, error) {
	low, high := 32768, 60999
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(strings.TrimSpace(string(b)), &low, &high)
	}
	var err error
	for range 100 {
		var list []*published
		if list, err = f.bind(in4, in6, hostIP, uint16(low+rand.IntN(high-low+1)), port, proto); err == nil || !errors.Is(err, syscall.EADDRINUSE) {
			return list, err
		}
	}
	return nil, err
}

// bind binds one host port on hostIP, or on all addresses of both families.
func (f *Forwarder) bind(in4, in6, hostIP netip.Addr, hostPort, port uint16, proto string) ([]*published, error) {
	hosts := []netip.Addr{hostIP}
	if !hostIP.IsValid() {
		hosts = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	var made []*published
	for _, h := range hosts {
		p := &published{f: f, bound: Bound{netip.AddrPortFrom(h, hostPort), port, proto}, in4: in4, in6: in6, done: make(chan struct{})}
		err := p.listen()
		if err != nil && !hostIP.IsValid() && h.Is6() && (errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)) {
			continue // the host has no IPv6
		}
		if err != nil {
			for _, q := range made {
				f.unbind(q)
			}
			return nil, &BindError{p.bound.Host, err}
		}
		f.mu.Lock()
		f.ports[portKey{p.bound.Host, proto}] = p
		f.mu.Unlock()
		go p.serve()
		made = append(made, p)
	}
	return made, nil
}

func (p *published) listen() error {
	family := "4"
	if p.bound.Host.Addr().Is6() {
		family = "6"
	}
	var err error
	if p.bound.Proto == "udp" {
		p.clients = map[netip.AddrPort]netip.AddrPort{}
		p.pc, err = net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(p.bound.Host))
	} else {
		p.ln, err = net.ListenTCP("tcp"+family, net.TCPAddrFromAddrPort(p.bound.Host))
	}
	return err
}

func (p *published) close() {
	p.once.Do(func() {
		if p.ln != nil {
			_ = p.ln.Close()
		}
		if p.pc != nil {
			_ = p.pc.Close()
		}
	})
}

func (f *Forwarder) unbind(p *published) {
	p.close()
	<-p.done
	f.mu.Lock()
	delete(f.ports, portKey{p.bound.Host, p.bound.Proto})
	f.mu.Unlock()
}

// Unpublish closes published ports.
func (f *Forwarder) Unpublish(list []Bound) error {
	for _, b := range list {
		f.mu.Lock()
		p := f.ports[portKey{b.Host, b.Proto}]
		f.mu.Unlock()
		if p != nil {
			f.unbind(p)
		}
	}
	return nil
}

func (p *published) serve() {
	defer close(p.done)
	if p.pc != nil {
		p.serveUDP()
		return
	}
	for {
		c, err := p.ln.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-time.After(10 * time.Millisecond): // out of descriptors: let others end
			case <-p.f.ctx.Done():
			}
			continue
		}
		go p.connect(c)
	}
}

// insideFor is the container's end for a client of the given family, and the client as the container sees it.
func (p *published) insideFor(client netip.AddrPort) (src, dst netip.AddrPort) {
	a := client.Addr().Unmap()
	in, gw := p.in4, p.f.cfg.Gateway4
	if a.Is6() && p.in6.IsValid() || !in.IsValid() {
		in, gw = p.in6, p.f.cfg.Gateway6
	}
	src = netip.AddrPortFrom(a, client.Port())
	if a.Is4() != in.Is4() || hostOwn(a) || p.f.cfg.Inside.Owns(a) {
		src = netip.AddrPortFrom(gw, client.Port())
	}
	return src, netip.AddrPortFrom(in, p.bound.Port)
}

// connect dials the container in the client's name; a refusal there is a reset here.
func (p *published) connect(c *net.TCPConn) {
	src, dst := p.insideFor(c.RemoteAddr().(*net.TCPAddr).AddrPort())
	ctx, cancel := context.WithTimeout(p.f.ctx, dialTimeout)
	in, err := p.f.cfg.Inside.DialTCP(ctx, src, dst)
	cancel()
	if err != nil {
		reset(c)
		return
	}
	p.f.counters[countInbound].Add(1)
	p.f.run(&flow{direction: "in", inside: dst, outside: src, in: in, host: c})
}

// serveUDP carries clients' datagrams to the container.
func (p *published) serveUDP() {
	for {
		n, buf, from, err := readDatagram(p.pc)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		client := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		src, dst := p.insideFor(client)
		p.mu.Lock()
		if len(p.clients) < p.f.cfg.Limits.UDP || p.clients[src].IsValid() {
			p.clients[src] = client
			p.mu.Unlock()
			_ = p.f.cfg.Inside.WriteUDP(src, dst, (*buf)[:n])
		} else {
			clear(p.clients)
			p.mu.Unlock()
		}
		buffers.Put(buf)
	}
}

// replyPublished sends a container's datagram through the published port that its peer came in by.
func (f *Forwarder) replyPublished(d stack.Packet) bool {
	f.mu.Lock()
	var found *published
	var to netip.AddrPort
	for k, p := range f.ports {
		if k.proto != "udp" || p.bound.Port != d.Src.Port() || p.in4 != d.Src.Addr() && p.in6 != d.Src.Addr() {
			continue
		}
		p.mu.Lock()
		client, ok := p.clients[d.Dst]
		p.mu.Unlock()
		if ok {
			found, to = p, client
			break
		}
	}
	f.mu.Unlock()
	if found == nil {
		return false
	}
	_, _ = found.pc.WriteToUDPAddrPort(d.Payload, to)
	return true
}

// hairpin finds the published TCP port behind the gateway's own address.
func (f *Forwarder) hairpin(dst netip.AddrPort) netip.AddrPort {
	if f.cfg.Internal || !f.cfg.Inside.Owns(dst.Addr()) {
		return netip.AddrPort{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, p := range f.ports {
		if k.proto == "tcp" && k.host.Port() == dst.Port() && p.bound.Host.Addr().IsUnspecified() {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dst.Port())
		}
	}
	return netip.AddrPort{}
}

// hairpinUDP does the same for a datagram, without a host socket.
func (f *Forwarder) hairpinUDP(stack.Packet) bool { return false }

// Flows lists what is live.
func (f *Forwarder) Flows() []Flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []Flow
	for fl := range f.flows {
		list = append(list, Flow{
			Proto: "tcp", Direction: fl.direction, State: "established", Inside: fl.inside, Outside: fl.outside, HostSide: fl.hostSide,
			BytesIn: fl.bytesIn.Load(), BytesOut: fl.bytesOut.Load(), Created: fl.created,
		})
	}
	for _, a := range f.udp {
		out := Flow{Proto: "udp", Direction: "out", State: "mapped", Inside: a.inside, BytesIn: a.bytesIn.Load(), BytesOut: a.bytesOut.Load(),
			PacketsIn: a.packetsIn.Load(), PacketsOut: a.packets.Load(), Created: a.created}
		if o := a.outside.Load(); o != nil {
			out.Outside = *o
		}
		if l, ok := a.pc.LocalAddr().(*net.UDPAddr); ok {
			out.HostSide = l.AddrPort()
		}
		list = append(list, out)
	}
	for k, s := range f.echo {
		list = append(list, Flow{Proto: "icmp", Direction: "out", State: "mapped", Inside: netip.AddrPortFrom(k.src, k.id), PacketsIn: s.in.Load(), PacketsOut: s.out.Load(), Created: s.created})
	}
	return list
}
