package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/usernet/usernet/autoconf"
	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/policy"
	vswitch "github.com/usernet/usernet/switch"
)

// Link carries Ethernet frames between a switch port and whatever is behind it. *tap.Device is one; Pipe is one without
// a kernel.
type Link interface {
	// WriteFrame takes a frame out of the switch (see vswitch.Device). After Close it fails.
	vswitch.Device
	// Serve gives the port each frame that comes from the other end, until the link is closed or stopped
	// (net.ErrClosed) or the other end is gone (another error). It is called once.
	Serve(p *vswitch.Port) error
	// Stop ends Serve for good, and returns when the port has what was read. Frames can still be written. Stopping
	// again, or after Close, does nothing.
	Stop()
	// Close ends Serve and all later writes, and frees what the link has. Closing again is no error.
	Close() error
}

// SocketSource makes TCP sockets inside an attachment's network namespace, by which a connection bypasses its link and
// the gateway: the kernel moves the bytes.
type SocketSource interface {
	// Socket returns an unconnected, non-blocking socket for a connection to the attachment, or one that it opens
	// (outbound), from or to outside. The descriptor is the caller's. An error means that the connection takes the way
	// through the gateway. It waits a fraction of a second at most, and not after ctx has ended.
	Socket(ctx context.Context, outside netip.AddrPort, outbound, ipv6 bool) (fd int, err error)
	// PrefillInbound makes sockets for connections to the attachment ahead of the first one. It does not wait.
	PrefillInbound(ipv4, ipv6 bool)
	// Answered is called where the attachment answered a connection over an outbound socket, Unanswered where it did
	// not.
	Answered(outside netip.AddrPort)
	Unanswered(outside netip.AddrPort)
}

// AttachConfig says who is behind a link and what it may do.
type AttachConfig struct {
	ID   string // not empty, and not that of another attachment of this network
	Name string // for people
	MAC  net.HardwareAddr
	// Addrs are the addresses that the attachment has, and may send from. The link-local IPv6 address that follows from
	// the MAC is allowed without being named.
	Addrs []netip.Addr
	// Unguarded lets it send from other MACs and addresses too: a bridge or a virtual machine is behind it.
	Unguarded bool
	// VLAN keeps it apart from attachments in another one and in none; 0: none.
	VLAN uint16
	// HostLoopback lets it reach services on the host's loopback at the gateway's address.
	HostLoopback bool
	// Policy is where it may connect to; nil: the network's.
	Policy *policy.Policy
	// Sockets are for TCP that bypasses the link; nil: none does. Their owner closes them, after Detach.
	Sockets SocketSource
	// From bounds the bytes that it sends, and To those for it; both are of the link alone, so that Sockets has to be
	// nil. The zero values bound nothing.
	From, To vswitch.Limit
	// Paused leaves the link unread until Start.
	Paused bool
	// Filter says of each frame that it sends whether it may go on; nil: all may. It must not block or change the
	// frame.
	Filter func(*vswitch.Frame) bool
	// Autoconf configures the attachment, and nobody else, when it asks by DHCP or router solicitation, in the
	// gateway's name; nil: nobody does. The router's MAC address in it is not used.
	Autoconf *autoconf.Config
}

// Attachment is something on a network. It ends with Detach, or with the network.
type Attachment struct {
	n    *Network
	cfg  AttachConfig
	name atomic.Pointer[string] // cfg.Name, or what Rename has made of it
	// addrs are cfg.Addrs, or what SetAddrs has made of them; changed under n.attached's lock.
	addrs  atomic.Pointer[[]netip.Addr]
	policy atomic.Pointer[policy.Policy] // cfg.Policy, or what SetPolicy has made of it; nil: the network's
	link   Link
	port   *vswitch.Port

	start  sync.Once
	detach sync.Once
	reader sync.WaitGroup     // of the link, and the autoconf server
	cancel context.CancelFunc // ends the autoconf server
	err    error              // of Detach; set by detach
}

// Errors of Attach that a caller may act on.
var (
	ErrClosed   = errors.New("the network is closed")
	ErrAttached = errors.New("it is attached already")
)

// Attach connects a link to the network, which owns it from then on. Where it fails the link stays the caller's.
func (n *Network) Attach(cfg AttachConfig, link Link) (*Attachment, error) {
	a := &Attachment{n: n, cfg: cfg, link: link}
	a.name.Store(&cfg.Name)
	a.addrs.Store(&cfg.Addrs)
	a.policy.Store(cfg.Policy)
	fail := func(err error) (*Attachment, error) {
		return nil, fmt.Errorf("attaching %s to network %s: %w", cfg.Name, n.cfg.Name, err)
	}
	if cfg.ID == "" {
		return fail(errors.New("it has no id"))
	}
	n.attached.Lock()
	defer n.attached.Unlock()
	if n.attached.closed {
		return fail(ErrClosed)
	}
	if n.attached.byID[cfg.ID] != nil {
		return fail(ErrAttached)
	}
	role := vswitch.Guest
	if cfg.Unguarded {
		role = vswitch.Learning
	}
	srv, err := n.ownAutoconf(cfg.Autoconf, link)
	if err != nil {
		return fail(err)
	}
	var answer func(*vswitch.Frame) bool
	if srv != nil {
		answer = srv.Answer
	}
	port, err := n.sw.Connect(vswitch.PortConfig{
		Name:     cfg.Name,
		MAC:      cfg.MAC,
		Addrs:    cfg.Addrs,
		Role:     role,
		Isolated: n.cfg.Isolated,
		VLAN:     cfg.VLAN,
		Filter:   cfg.Filter,
		Answer:   answer,
		Owner:    a,
		From:     cfg.From,
		To:       cfg.To,
	}, link)
	if err != nil {
		return fail(err)
	}
	a.port = port
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	if srv != nil {
		a.reader.Go(func() { srv.Run(ctx) })
	}
	n.attached.byID[cfg.ID] = a
	for _, addr := range cfg.Addrs {
		n.attached.byAddr[addr] = a
		n.gw.SetNeighbor(addr, cfg.MAC)
	}
	if !cfg.Paused {
		a.Start()
	}
	return a, nil
}

// Start reads from the link of an attachment that was attached with Paused. Starting again does nothing.
func (a *Attachment) Start() {
	a.start.Do(func() { a.reader.Go(a.serve) })
}

// serve reads until the link ends. A panic while one of its frames is handled takes the port off the switch: the next
// frame may be the same.
func (a *Attachment) serve() {
	serve := func() error { return a.link.Serve(a.port) }
	err := isolate.Call(a.n.log, "reading frames", serve, "attachment", a.Name(), "id", a.cfg.ID)
	switch {
	case isolate.IsPanic(err):
		_ = errors.Join(a.port.Close(), a.link.Close()) // the rest goes with Detach
	case err != nil && !errors.Is(err, net.ErrClosed):
		a.n.log.Debug("link ended", "attachment", a.Name(), "error", err)
	}
}

// Quiesce stops reading from the link for good, and returns when all that was read has gone its way.
func (a *Attachment) Quiesce() {
	a.start.Do(func() {}) // it was never started, and will not be
	a.link.Stop()
	a.cancel()
	a.reader.Wait()
}

// Detach takes the attachment off the network, ends its flows, and closes its link. Detaching again does nothing.
func (a *Attachment) Detach() error {
	a.detach.Do(func() {
		a.start.Do(func() {})
		a.cancel()
		a.err = errors.Join(a.port.Close(), a.link.Close())
		n := a.n
		n.attached.Lock()
		delete(n.attached.byID, a.cfg.ID)
		addrs := *a.addrs.Load()
		n.forget(a, addrs)
		n.attached.Unlock()
		n.abort(addrs)
		a.reader.Wait()
	})
	return a.err
}

// forget has addresses be no longer an attachment's. The caller holds the lock of n.attached.
func (n *Network) forget(a *Attachment, addrs []netip.Addr) {
	for _, addr := range addrs {
		if n.attached.byAddr[addr] == a {
			delete(n.attached.byAddr, addr)
		}
	}
}

// abort ends the flows of addresses that are nobody's any more.
func (n *Network) abort(addrs []netip.Addr) {
	for _, addr := range addrs {
		n.gw.RemoveNeighbor(addr)
		n.fwd.AbortContainer(addr)
	}
}

// SetAddrs changes the addresses that the attachment has (AttachConfig.Addrs). Flows of those that go are ended.
func (a *Attachment) SetAddrs(addrs []netip.Addr) error {
	n := a.n
	n.attached.Lock()
	before := *a.addrs.Load()
	gone := slices.DeleteFunc(slices.Clone(before), func(x netip.Addr) bool { return slices.Contains(addrs, x) })
	if n.attached.byID[a.cfg.ID] != a {
		n.attached.Unlock()
		return ErrClosed
	}
	if err := a.port.SetAddrs(addrs); err != nil {
		n.attached.Unlock()
		return err
	}
	addrs = slices.Clone(addrs)
	a.addrs.Store(&addrs)
	n.forget(a, gone)
	for _, addr := range addrs {
		n.attached.byAddr[addr] = a
		n.gw.SetNeighbor(addr, a.cfg.MAC)
	}
	n.attached.Unlock()
	n.abort(gone)
	return nil
}

// Stats are the counters of the attachment's switch port.
func (a *Attachment) Stats() vswitch.Stats { return a.port.Stats() }

// Mirror shows f the attachment's frames until stop is called: in is true for those that it sends. f must not block, or
// change or keep the frame.
func (a *Attachment) Mirror(f func(in bool, frame *vswitch.Frame)) (stop func()) {
	return a.n.sw.Mirror(func(p *vswitch.Port, in bool, frame *vswitch.Frame) {
		if p == a.port {
			f(in, frame)
		}
	})
}

// ID is the attachment's, from its AttachConfig.
func (a *Attachment) ID() string { return a.cfg.ID }

// VLAN is the one that the attachment is in; 0: none.
func (a *Attachment) VLAN() uint16 { return a.cfg.VLAN }

// Network is the one that it is on.
func (a *Attachment) Network() *Network { return a.n }

// Name is what people call it.
func (a *Attachment) Name() string { return *a.name.Load() }

// Rename gives it another name, for flows and logs.
func (a *Attachment) Rename(name string) { a.name.Store(&name) }

// Has says whether addr is one of the attachment's addresses.
func (a *Attachment) Has(addr netip.Addr) bool {
	return slices.Contains(*a.addrs.Load(), addr)
}

// byAddr is the attachment behind an inside address, or nil.
func (n *Network) byAddr(addr netip.Addr) *Attachment {
	n.attached.RLock()
	defer n.attached.RUnlock()
	return n.attached.byAddr[addr]
}

// byID is an attachment, or nil.
func (n *Network) byID(id string) *Attachment {
	n.attached.RLock()
	defer n.attached.RUnlock()
	return n.attached.byID[id]
}

// Owner says whose an inside address is; id is "" where it is nobody's.
func (n *Network) Owner(addr netip.Addr) (id, name string) {
	n.attached.RLock()
	defer n.attached.RUnlock()
	if a := n.attached.byAddr[addr]; a != nil {
		return a.cfg.ID, a.Name()
	}
	return "", ""
}
