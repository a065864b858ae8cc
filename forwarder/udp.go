package forwarder

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/usernet/usernet/stack"
)

// How long an association without traffic from the container is kept. RFC 4787 REQ-5 wants 120 s at least and
// recommends 5 minutes; a question to port 53 needs no more than a resolver waits (RFC 4787, REQ-5 c).
const (
	udpTimeout = 5 * time.Minute
	dnsTimeout = 20 * time.Second
)

// maxDatagram is the largest UDP payload over IPv4, in bytes.
const maxDatagram = 65507

// association is the host socket of one container source address and port: the same for every destination (RFC 4787
// REQ-1), open to replies from anywhere (REQ-8).
type association struct {
	f                  *Forwarder
	inside             netip.AddrPort
	pc                 *net.UDPConn
	loopback           netip.Addr // the gateway's address that stood for the host's loopback
	last               atomic.Int64
	timeout            time.Duration
	created            time.Time
	bytesIn, bytesOut  atomic.Uint64
	packetsIn, packets atomic.Uint64
	outside            atomic.Pointer[netip.AddrPort]
	once               sync.Once
}

// HandleUDP sends a container's datagram on.
func (f *Forwarder) HandleUDP(p stack.Packet) bool {
	if f.replyPublished(p) {
		return true
	}
	target, err := f.hostTarget(p.Src.Addr(), p.Dst)
	if err != nil {
		if hp := f.hairpinUDP(p); hp {
			return true
		}
		return false
	}
	a := f.associate(p, target)
	if a == nil {
		return true // over the limit: lost, as in a full queue
	}
	a.last.Store(time.Now().UnixNano())
	a.outside.Store(&p.Dst)
	if _, err := a.pc.WriteToUDPAddrPort(p.Payload, target); err != nil {
		return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENETUNREACH)
	}
	a.packets.Add(1)
	a.bytesOut.Add(uint64(len(p.Payload)))
	return true
}

func (f *Forwarder) associate(p stack.Packet, target netip.AddrPort) *association {
	f.mu.Lock()
	a := f.udp[p.Src]
	f.mu.Unlock()
	if a != nil {
		return a
	}
	udp := func(u *usage) *int { return &u.udp }
	if !f.take(p.Src.Addr(), udp, f.cfg.Limits.UDP) {
		f.counters[countUDPLimit].Add(1)
		return nil
	}
	network, local := "udp4", &net.UDPAddr{}
	if target.Addr().Is6() {
		network = "udp6"
	}
	if out := f.outbound(target.Addr()); out.IsValid() {
		local.IP = out.AsSlice()
	}
	pc, err := net.ListenUDP(network, local)
	if err != nil {
		f.give(p.Src.Addr(), udp)
		f.cfg.Logger.Debug("UDP association", "error", err)
		return nil
	}
	listenErrors(pc, target.Addr().Is6())
	a = &association{f: f, inside: p.Src, pc: pc, timeout: udpTimeout, created: time.Now()}
	if target.Addr().IsLoopback() {
		a.loopback = p.Dst.Addr()
	}
	if p.Dst.Port() == 53 {
		a.timeout = dnsTimeout
	}
	a.last.Store(time.Now().UnixNano())
	f.mu.Lock()
	if other := f.udp[p.Src]; other != nil || f.closed {
		f.mu.Unlock()
		_ = pc.Close()
		f.give(p.Src.Addr(), udp)
		return other
	}
	f.udp[p.Src] = a
	f.wg.Add(1)
	f.mu.Unlock()
	f.counters[countUDP].Add(1)
	go a.replies()
	return a
}

func (a *association) close() {
	a.once.Do(func() { _ = a.pc.Close() })
}

// replies carries datagrams back until the association has been idle for too long.
func (a *association) replies() {
	defer func() {
		a.close()
		a.f.mu.Lock()
		delete(a.f.udp, a.inside)
		a.f.mu.Unlock()
		a.f.give(a.inside.Addr(), func(u *usage) *int { return &u.udp })
		a.f.wg.Done()
	}()
	for {
		idle := time.Unix(0, a.last.Load()).Add(a.timeout)
		if time.Now().After(idle) {
			return
		}
		_ = a.pc.SetReadDeadline(idle)
		n, buf, from, err := readDatagram(a.pc)
		if err != nil && a.passErrors() {
			continue
		}
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() || errors.Is(err, syscall.ECONNREFUSED) {
				continue
			}
			return
		}
		src := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if src.Addr().IsLoopback() && a.loopback.IsValid() {
			src = netip.AddrPortFrom(a.loopback, src.Port())
		}
		a.packetsIn.Add(1)
		a.bytesIn.Add(uint64(n))
		_ = a.f.cfg.Inside.WriteUDP(src, a.inside, (*buf)[:n])
		buffers.Put(buf)
	}
}

// readDatagram waits for a datagram without holding a buffer, and reads it into a pooled one, which is the caller's.
func readDatagram(pc *net.UDPConn) (int, *[]byte, netip.AddrPort, error) {
	raw, err := pc.SyscallConn()
	if err != nil {
		return 0, nil, netip.AddrPort{}, err
	}
	var n int
	var from syscall.Sockaddr
	var rerr error
	var buf *[]byte
	err = raw.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[]byte)
		for {
			n, from, rerr = syscall.Recvfrom(int(fd), *buf, 0)
			if rerr != syscall.EINTR {
				break
			}
		}
		if rerr != nil {
			buffers.Put(buf)
			buf = nil
		}
		return rerr != syscall.EAGAIN
	})
	if err == nil {
		err = rerr
	}
	if err != nil {
		if buf != nil {
			buffers.Put(buf)
		}
		return 0, nil, netip.AddrPort{}, err
	}
	switch sa := from.(type) {
	case *syscall.SockaddrInet4:
		return n, buf, netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *syscall.SockaddrInet6:
		return n, buf, netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), nil
	}
	buffers.Put(buf)
	return 0, nil, netip.AddrPort{}, errors.New("datagram from nowhere")
}
