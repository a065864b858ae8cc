package vswitch

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usernet/usernet/internal/rate"
)

// Port is a device's place on a switch. Its methods may be called by many goroutines at once.
type Port struct {
	sw      *Switch
	dev     Device
	owner   any
	state   atomic.Pointer[portState]
	learned atomic.Pointer[learnedMACs]
	links   atomic.Pointer[map[*Port]access] // what it may send to ports that it is kept apart from
	closed  atomic.Bool
	static  bool // SetStatic was called for it; guarded by sw.mu

	in, out   counter
	fromPeers atomic.Uint64 // rounds of other ports' readers whose frames were all for this one
	drops     [numReasons]atomic.Uint64

	floods struct { // frames for several ports
		sync.Mutex
		rate.Bucket
	}

	fragMu sync.Mutex // guards frags
	frags  *fragments // made with the first fragment
}

// Frames to groups, and to MACs that no port has, cost as many writes as there are ports. A port may cause so many of
// these a second, and so many at once: some 7 % of a processor. That is 1000 multicast frames a second on a network of
// 50 containers, and as much as two containers can send on one of three.
const (
	floodRate  = 50000
	floodBurst = 50000
)

// mayFlood says whether the port may have a frame written to so many ports now.
func (p *Port) mayFlood(ports int) bool {
	p.floods.Lock()
	defer p.floods.Unlock()
	return p.floods.Allow(time.Now(), float64(ports))
}

// counter counts frames and their bytes, on a cache line of its own: another processor counts the other direction.
type counter struct {
	frames, bytes atomic.Uint64
	_             [48]byte
}

func (c *counter) add(n int) {
	c.frames.Add(1)
	c.bytes.Add(uint64(n))
}

// portState is a PortConfig made ready for comparing. It never changes once it is stored.
type portState struct {
	cfg       PortConfig
	mac       macKey
	v4        [][4]byte
	v6        [][16]byte
	linkLocal [16]byte
	limit     int           // of MACs that are learned
	age       time.Duration // for how long they stay; 0: for good
}

func newPortState(cfg PortConfig) (*portState, error) {
	if len(cfg.MAC) != 6 || cfg.MAC[0]&1 != 0 || bytes.Equal(cfg.MAC, make([]byte, 6)) {
		return nil, fmt.Errorf("port %s: %q is no MAC address of a single station", cfg.Name, cfg.MAC)
	}
	cfg.MAC, cfg.Addrs = slices.Clone(cfg.MAC), slices.Clone(cfg.Addrs)
	r := &portState{
		cfg:       cfg,
		mac:       keyOf(cfg.MAC),
		linkLocal: LinkLocal(cfg.MAC).As16(),
		limit:     cfg.learnLimit(),
		age:       cfg.age(),
	}
	for _, a := range cfg.Addrs {
		switch a = a.Unmap(); {
		case a.Is4():
			r.v4 = append(r.v4, a.As4())
		case a.Is6():
			r.v6 = append(r.v6, a.As16())
		}
	}
	return r, nil
}

// LinkLocal is the IPv6 link-local address that follows from a MAC of six bytes (RFC 4291 appendix A).
func LinkLocal(mac []byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
}

// learns says whether any MAC may be behind the port.
func (r *portState) learns() bool { return r.limit > 0 }

func (r *portState) has4(a []byte) bool {
	for i := range r.v4 {
		if bytes.Equal(r.v4[i][:], a) {
			return true
		}
	}
	return false
}

func (r *portState) has6(a []byte) bool {
	for i := range r.v6 {
		if bytes.Equal(r.v6[i][:], a) {
			return true
		}
	}
	return bytes.Equal(r.linkLocal[:], a)
}

// Update changes what the port may do, without losing a frame.
func (p *Port) Update(cfg PortConfig) error {
	r, err := newPortState(cfg)
	if err != nil {
		return err
	}
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if p.closed.Load() {
		return ErrClosed
	}
	if err := p.sw.checkMACFree(r.mac, p); err != nil {
		return err
	}
	old := p.state.Swap(r)
	if !r.learns() {
		p.learned.Store(&learnedMACs{})
	}
	p.sw.change(func(t *table) {
		t.unindex(p, old)
		t.index(p, r)
	})
	return nil
}

// SetAddrs changes the addresses that the port may send from (PortConfig.Addrs).
func (p *Port) SetAddrs(addrs []netip.Addr) error {
	cfg := p.state.Load().cfg
	cfg.Addrs = addrs
	return p.Update(cfg)
}

// Owner is PortConfig.Owner.
func (p *Port) Owner() any { return p.owner }

// Stats counts what passed a port. In is from the device into the switch, out is from the switch to the device.
type Stats struct {
	FramesIn, BytesIn   uint64
	FramesOut, BytesOut uint64
	// Drops has the reasons that occurred. DropDevice is counted by the port that should have received the frame, all
	// others by the one that sent it.
	Drops map[Reason]uint64
}

// Stats returns the port's counters.
func (p *Port) Stats() Stats {
	s := Stats{
		FramesIn: p.in.frames.Load(), BytesIn: p.in.bytes.Load(),
		FramesOut: p.out.frames.Load(), BytesOut: p.out.bytes.Load(),
		Drops: map[Reason]uint64{},
	}
	for r := range p.drops {
		if n := p.drops[r].Load(); n > 0 {
			s.Drops[Reason(r)] = n
		}
	}
	return s
}

// CountDrop counts a frame that the port's device had to drop itself.
func (p *Port) CountDrop(r Reason) { p.drops[r].Add(1) }

// Close unplugs the port; its device stays open. Closing it again does nothing.
func (p *Port) Close() error {
	if q, ok := p.dev.(*limited); ok {
		defer q.close() // after the unlocking, since it waits
	}
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if p.closed.Swap(true) {
		return nil
	}
	p.sw.change(func(t *table) { t.disconnect(p) })
	return nil
}
