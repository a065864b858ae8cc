package fabric

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/isolate"
)

// Where no UDP gets through between two hosts, one TCP connection carries their datagrams (a carrier), each behind its
// length, as RFC 9329 does with IPsec's. What is sealed stays sealed, by WireGuard, so a carrier needs no security of
// its own, and an accepted one is nobody's until WireGuard has authenticated a message that came by it. The host that
// dials it first is the one with the lower id; the other follows where that leads to nothing.
//
//	"usernet1"  then for each datagram: length (16 bits, big endian), datagram
//
// At the same port hosts ask for connections of containers (sockets.go); what a connection begins with says what it is.
const (
	carrierMagic  = "usernet1"
	carrierPrefix = "tcp:" // of a session's endpoint

	strangerFor        = 15 * time.Second // until an accepted one has to be somebody's
	carrierDial        = 3 * time.Second  // for each address
	carrierIdle        = time.Minute      // without a datagram
	carrierLinger      = 2 * time.Second  // for what is on the way when the hosts go on by UDP
	carrierUserTimeout = 10 * time.Second // without an acknowledgement (tcp(7), TCP_USER_TIMEOUT)
	carrierUnsent      = 256 << 10        // bytes in the kernel that are not sent (TCP_NOTSENT_LOWAT)
	acceptAgain        = 100 * time.Millisecond
)

// carriers are the fabric's TCP connections to other hosts.
type carriers struct {
	listeners []net.Listener // one of each family at most; they never change
	incoming  chan *block    // from carriers to WireGuard
	ctx       context.Context
	cancel    context.CancelFunc

	mu        sync.Mutex // guards what follows
	closed    bool
	last      uint64
	all       map[uint64]*carrier
	strangers strangers // accepted connections that are nobody's yet
}

func (cs *carriers) init() {
	cs.incoming = make(chan *block, blockQueue)
	cs.all, cs.strangers = map[uint64]*carrier{}, newStrangers()
	cs.ctx, cs.cancel = context.WithCancel(context.Background())
}

// listenTCP listens where the UDP sockets do: on the same port where that is free, else on any.
func (f *Fabric) listenTCP() error {
	for _, s := range f.sockets {
		network := "tcp4"
		if s.v6 {
			network = "tcp6"
		}
		var l net.Listener
		var err error
		ports := []uint16{s.local.Port(), 0}
		if n := len(f.carriers.listeners); n > 0 { // both families have one port, where that can be
			ports = []uint16{f.carriers.listeners[0].Addr().(*net.TCPAddr).AddrPort().Port(), 0}
		}
		for _, port := range ports {
			at := net.JoinHostPort(s.local.Addr().String(), strconv.Itoa(int(port)))
			if l, err = (&net.ListenConfig{}).Listen(f.carriers.ctx, network, at); !errors.Is(err, unix.EADDRINUSE) {
				break
			}
		}
		if err != nil {
			return fmt.Errorf("listen for other hosts' connections: %w", err)
		}
		f.carriers.listeners = append(f.carriers.listeners, l)
		f.workers.Go(func() { f.acceptCarriers(l) })
	}
	return nil
}

// TCPAddrs are the addresses at which connections of other hosts are taken; none without a key.
func (f *Fabric) TCPAddrs() []netip.AddrPort {
	var list []netip.AddrPort
	for _, l := range f.carriers.listeners {
		list = append(list, plainAddr(l.Addr().(*net.TCPAddr).AddrPort()))
	}
	return list
}

// acceptCarriers takes connections until the listener is closed.
func (f *Fabric) acceptCarriers(l net.Listener) {
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			f.greet(conn.(*net.TCPConn))
		case f.carriers.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default: // out of descriptors: the next one may find some
			f.log.Debug("a connection of another host was not taken", "error", err)
			select {
			case <-f.stop:
				return
			case <-time.After(acceptAgain):
			}
		}
	}
}

// addCarrier starts a connection: one that was dialed to a peer, or accepted from a stranger. It returns nil where
// there are too many.
func (f *Fabric) addCarrier(conn *net.TCPConn, to *peer, from *stranger) *carrier {
	cs := &f.carriers
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed || len(cs.all) >= maxPeers {
		_ = conn.Close()
		f.drops[DropRate].Add(1)
		return nil
	}
	cs.last++
	c := newCarrier(f, cs.last, conn, plainAddr(conn.RemoteAddr().(*net.TCPAddr).AddrPort()))
	c.greeted, c.stranger = to == nil, from
	cs.all[c.id] = c
	setCarrierOptions(conn)
	f.workers.Go(func() {
		defer f.forgetCarrier(c)
		isolate.Do(f.log, "receiving from another host by TCP", func() { c.read() })
	})
	f.workers.Go(func() {
		defer c.close()
		isolate.Do(f.log, "sending to another host by TCP", func() { c.write() })
	})
	return c
}

// setCarrierOptions keeps little in the kernel, and has a connection end that leads nowhere any more.
func setCarrierOptions(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, carrierUnsent)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(carrierUserTimeout.Milliseconds()))
	})
}

// forgetCarrier ends a connection.
func (f *Fabric) forgetCarrier(c *carrier) {
	c.close()
	f.carriers.mu.Lock()
	delete(f.carriers.all, c.id)
	f.carriers.known(c)
	f.carriers.mu.Unlock()
	if p := c.peer.Load(); p != nil && p.carrier.CompareAndSwap(c, nil) {
		p.tryAgain()
		f.wake()
	}
}

// known notes that a connection counts among the strangers no more. The caller holds mu.
func (cs *carriers) known(c *carrier) {
	cs.strangers.forget(c.stranger)
	c.stranger = nil
}

// hasStrangers says whether there are connections that are nobody's yet.
func (f *Fabric) hasStrangers() bool {
	f.carriers.mu.Lock()
	defer f.carriers.mu.Unlock()
	return len(f.carriers.strangers.all) > 0
}

// carrierOf is the connection that a session's endpoint names; nil where it is none, or has ended.
func (f *Fabric) carrierOf(endpoint string) *carrier {
	text, ok := strings.CutPrefix(endpoint, carrierPrefix)
	if !ok {
		return nil
	}
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil
	}
	f.carriers.mu.Lock()
	defer f.carriers.mu.Unlock()
	return f.carriers.all[id]
}

// tidyCarriers ends the connections that were not used for long, or are nobody's for too long.
func (f *Fabric) tidyCarriers(now time.Time) {
	f.carriers.mu.Lock()
	var old []*carrier
	for _, c := range f.carriers.all {
		idle := now.Sub(time.Unix(0, c.used.Load()))
		p := c.peer.Load()
		switch {
		case p == nil && now.Sub(c.began) > strangerFor, idle > carrierIdle,
			c.left.Load() != 0 && now.Sub(time.Unix(0, c.left.Load())) > carrierLinger:
			old = append(old, c)
		}
	}
	silent := f.carriers.strangers.before(now.Add(-strangerFor))
	f.carriers.mu.Unlock()
	for _, c := range old {
		c.close()
	}
	for _, conn := range silent {
		_ = conn.Close()
	}
}

// closeCarriers ends all connections and takes no more.
func (f *Fabric) closeCarriers() {
	cs := &f.carriers
	cs.cancel()
	for _, l := range cs.listeners {
		_ = l.Close()
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closed = true
	for _, c := range cs.all {
		c.close()
	}
	for s := range cs.strangers.all {
		_ = s.conn.Close()
	}
}
