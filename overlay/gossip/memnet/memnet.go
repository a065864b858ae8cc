// Package memnet is a network in memory for package gossip's tests and simulation: hosts that send datagrams and open
// streams, a count of the bytes, and cuts between any two hosts.
package memnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// queueLen is how many datagrams wait at a host, as in a socket's buffer; more are dropped.
const queueLen = 256

// dialTime is how long a stream waits to be taken.
const dialTime = 10 * time.Second

// errCut is what a stream across a cut fails with.
var errCut = errors.New("memnet: the hosts are cut off from each other")

// Network is a network. The zero value has no hosts, and takes no time.
type Network struct {
	// Delay is how long a datagram is on its way, and what a stream carries; Rate is the bytes that a stream carries in
	// a second, 0: any number.
	Delay time.Duration
	Rate  int

	mu    sync.RWMutex // guards what follows
	hosts map[string]*Host
	cut   func(from, to netip.AddrPort) bool
}

// Host is a host's transport.
type Host struct {
	network *Network
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	closed  chan struct{}
	once    sync.Once

	// Datagrams and Streams are the bytes that the host has sent, without headers of UDP, TCP and IP; Dropped are
	// datagrams that its full queue lost.
	Datagrams, Streams, Dropped atomic.Int64
}

var _ memberlist.Transport = (*Host)(nil)

// Host makes a host.
func (n *Network) Host() *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts == nil {
		n.hosts = map[string]*Host{}
	}
	i := len(n.hosts) + 1
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 7946)
	h := &Host{
		network: n, addr: addr, packets: make(chan *memberlist.Packet, queueLen), streams: make(chan net.Conn),
		closed: make(chan struct{}),
	}
	n.hosts[addr.String()] = h
	return h
}

// Cut drops what f says from now on; nil: nothing. Streams that are open stay.
func (n *Network) Cut(f func(from, to netip.AddrPort) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = f
}

// to is another host, if it is reached.
func (h *Host) to(addr string) (*Host, error) {
	h.network.mu.RLock()
	defer h.network.mu.RUnlock()
	other := h.network.hosts[addr]
	switch {
	case other == nil:
		return nil, fmt.Errorf("memnet: %s: no such host", addr)
	case h.network.cut != nil && h.network.cut(h.addr, other.addr):
		return nil, errCut
	}
	return other, nil
}

// Addr is where the host is reached.
func (h *Host) Addr() netip.AddrPort { return h.addr }

// FinalAdvertiseAddr implements memberlist.Transport.
func (h *Host) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return h.addr.Addr().AsSlice(), int(h.addr.Port()), nil
}

// WriteTo implements memberlist.Transport. What is cut off is lost, as datagrams are.
func (h *Host) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	h.Datagrams.Add(int64(len(b)))
	other, err := h.to(addr)
	if errors.Is(err, errCut) {
		return now, nil
	}
	if err != nil {
		return now, err
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(h.addr), Timestamp: now}
	if d := h.network.Delay; d > 0 {
		time.AfterFunc(d, func() {
			p.Timestamp = time.Now()
			other.receive(p)
		})
	} else {
		other.receive(p)
	}
	return now, nil
}

// receive has a datagram wait until it is taken.
func (h *Host) receive(p *memberlist.Packet) {
	select {
	case h.packets <- p:
	default:
		h.Dropped.Add(1)
	}
}

// wait waits for as long as a stream takes to carry some bytes.
func (n *Network) wait(bytes int) {
	d := n.Delay
	if n.Rate > 0 {
		d += time.Duration(float64(bytes) / float64(n.Rate) * float64(time.Second))
	}
	time.Sleep(d) // nothing, if it is none
}

// PacketCh implements memberlist.Transport.
func (h *Host) PacketCh() <-chan *memberlist.Packet { return h.packets }

// counted is a stream whose bytes are counted.
type counted struct {
	net.Conn
	host *Host
}

// Write implements net.Conn.
func (c counted) Write(b []byte) (int, error) {
	c.host.network.wait(len(b))
	n, err := c.Conn.Write(b)
	c.host.Streams.Add(int64(n))
	return n, err
}

// RemoteAddr implements net.Conn.
func (c counted) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.host.addr) }

// DialTimeout implements memberlist.Transport.
func (h *Host) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	other, err := h.to(addr)
	if err != nil {
		return nil, err
	}
	h.network.wait(0)
	h.network.wait(0) // there and back
	near, far := net.Pipe()
	t := time.NewTimer(min(timeout, dialTime))
	defer t.Stop()
	select {
	case other.streams <- counted{far, other}:
		return counted{near, h}, nil
	case <-other.closed:
		return nil, fmt.Errorf("memnet: %s: connection refused", addr)
	case <-t.C:
		return nil, fmt.Errorf("memnet: %s: timeout", addr)
	}
}

// StreamCh implements memberlist.Transport.
func (h *Host) StreamCh() <-chan net.Conn { return h.streams }

// Shutdown implements memberlist.Transport.
func (h *Host) Shutdown() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}
