package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/network"
	vswitch "github.com/usernet/usernet/switch"
	"github.com/usernet/usernet/switch/vmlink/vmlinktest"
)

// echo sends back what comes, on the host's loopback.
type echo struct {
	conn *net.UDPConn
	port uint16
	done chan struct{}
}

func startEcho() (*echo, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	e := &echo{conn: conn, port: conn.LocalAddr().(*net.UDPAddr).AddrPort().Port(), done: make(chan struct{})}
	go func() {
		defer close(e.done)
		buf := make([]byte, 64)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = conn.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
	return e, nil
}

func (e *echo) close() error {
	err := e.conn.Close()
	<-e.done
	return err
}

// guest is a virtual machine as qemu's -netdev stream has it.
type guest struct {
	conn     net.Conn
	mac      network.MAC
	self     netip.Addr
	gateway  netip.Addr
	to       uint16 // the echo's port, at the gateway's address
	answered chan uint16
	done     chan struct{}

	sending sync.Mutex // guards writes to conn
	router  [6]byte    // the gateway's MAC address
}

const (
	ethernetHeader = 14     // IEEE 802.3
	typeIPv4       = 0x0800 // and the types of frames
	typeARP        = 0x0806
	arpRequest     = 1 // RFC 826
	arpReply       = 2
	protoUDP       = 17
)

// firstSource is the source port of a guest's flow 0.
const firstSource = 2000

// newGuest connects to the socket of an endpoint that was attached.
func newGuest(c network.Container, to uint16) (*guest, error) {
	conn, err := net.Dial("unix", c.VM.Socket)
	if err != nil {
		return nil, err
	}
	e := c.Endpoints[0]
	g := &guest{conn: conn, mac: e.MAC, self: e.IPv4.Addr(), gateway: e.Gateway4, to: to,
		answered: make(chan uint16, 256), done: make(chan struct{})}
	// A gateway's address is behind 02:42, as Docker's bridges have it.
	a := e.Gateway4.As4()
	g.router = [6]byte{0x02, 0x42, a[0], a[1], a[2], a[3]}
	go g.receive()
	return g, nil
}

func (g *guest) close() error {
	err := g.conn.Close()
	<-g.done
	return err
}

func (g *guest) send(to [6]byte, kind uint16, payload []byte) error {
	b := append(append(make([]byte, 0, ethernetHeader+len(payload)), to[:]...), g.mac[:]...)
	b = append(binary.BigEndian.AppendUint16(b, kind), payload...)
	g.sending.Lock()
	defer g.sending.Unlock()
	return vmlinktest.WriteFrame(g.conn, b)
}

// receive answers questions for the guest's address, and notes which flows are answered.
func (g *guest) receive() {
	defer close(g.done)
	buf := make([]byte, vswitch.MaxPayload)
	for {
		frame, err := vmlinktest.ReadFrame(g.conn, buf)
		if err != nil {
			return
		}
		if len(frame) > ethernetHeader {
			g.frame(binary.BigEndian.Uint16(frame[12:]), frame[ethernetHeader:])
		}
	}
}

func (g *guest) frame(kind uint16, payload []byte) {
	if kind == typeARP && len(payload) >= 28 && binary.BigEndian.Uint16(payload[6:]) == arpRequest &&
		netip.AddrFrom4([4]byte(payload[24:28])) == g.self {
		reply := append([]byte(nil), payload[:28]...)
		binary.BigEndian.PutUint16(reply[6:], arpReply)
		copy(reply[8:], g.mac[:])
		copy(reply[14:], payload[24:28])
		copy(reply[18:], payload[8:18])
		_ = g.send([6]byte(payload[8:14]), typeARP, reply)
		return
	}
	if kind != typeIPv4 {
		return
	}
	h, ok := packet.Parse(false, payload)
	if !ok || h.Proto != protoUDP || len(payload) < h.Transport+packet.UDPHeaderLen {
		return
	}
	if port := binary.BigEndian.Uint16(payload[h.Transport+2:]); port >= firstSource {
		select {
		case g.answered <- port:
		default: // nobody waits for it
		}
	}
}

// open sends the first datagram of each of n flows from one on, and waits for their answers. A datagram that is lost is
// sent again.
func (g *guest) open(ctx context.Context, from, n int) error {
	const window = 64 // that are not answered
	src := func(i int) netip.AddrPort { return netip.AddrPortFrom(g.self, uint16(firstSource+from+i)) }
	waiting := map[uint16]bool{}
	ctx, cancel := context.WithTimeout(ctx, giveUp+time.Duration(n)*10*time.Millisecond)
	defer cancel()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for next := 0; next < n || len(waiting) > 0; {
		if next < n && len(waiting) < window {
			if err := g.datagram(src(next)); err != nil {
				return err
			}
			waiting[src(next).Port()] = true
			next++
			continue
		}
		select {
		case port := <-g.answered:
			delete(waiting, port)
		case <-again.C:
			for port := range waiting {
				if err := g.datagram(netip.AddrPortFrom(g.self, port)); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return fmt.Errorf("%d datagrams of %d are not answered", len(waiting)+n-next, n)
		}
	}
	return nil
}

// datagram sends one byte.
func (g *guest) datagram(src netip.AddrPort) error {
	b := make([]byte, packet.MaxUDPHeaders+1)
	n := packet.PutUDP(b, src, netip.AddrPortFrom(g.gateway, g.to), 1)
	b[n-2], b[n-1] = 0, 0 // no checksum (RFC 768)
	return g.send(g.router, typeIPv4, b[:n+1])
}
