package vswitch

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usernet/usernet/internal/watchdog"
)

// ErrClosed is returned by what is done to a closed switch or port.
var ErrClosed = fmt.Errorf("switch port: %w", net.ErrClosed)

// ErrMACInUse is returned where two ports of a switch would have the same MAC.
var ErrMACInUse = errors.New("MAC address is in use on this network")

// Config describes a switch. The zero value works.
type Config struct {
	Name   string       // of the network, for the log
	Logger *slog.Logger // nil: none
	// MTU bounds the packets of untrusted ports, and the segments of their super-frames. 0: 65535.
	MTU int
}

// Device is what is behind a port: a TAP (package tap), the gateway (package stack), a tunnel. Package engine has one
// without either (Pipe), for tests. The port does not own it: who connected it closes it, after the port.
type Device interface {
	// WriteFrame takes a frame out of the switch. It may be called by many goroutines at once, and is called on the
	// goroutine that brought the frame, so it must not block for long. It must neither change f nor keep it. After an
	// error the frame counts as dropped (DropDevice) and is not sent again; the port stays.
	WriteFrame(f *Frame) error
}

// Flusher is a Device that may keep what a frame with MorePending set brought, to do it together with what others
// bring, until Flush is called.
type Flusher interface {
	Device
	// Flush does what was kept. It may be called by many goroutines at once.
	Flush()
}

// PortConfig says who is behind a port and what it may do.
type PortConfig struct {
	Name string // of the container, for people
	MAC  net.HardwareAddr
	// Addrs are the addresses the port may send from. The IPv6 link-local address that follows from the MAC
	// (EUI-64, RFC 4291 appendix A) is allowed without being named.
	Addrs []netip.Addr
	// Owner is returned by Port.Owner, for who is shown a port's frames. Port.Update does not change it.
	Owner any
	// Role is what is behind the port. Ports of all roles but Gateway are not trusted.
	Role Role
	// Isolated lets the port talk to the gateway only, and to others as Switch.SetLinks says.
	Isolated bool
	// VLAN, if not 0, keeps the port apart from ports of another VLAN and of none, but for the gateway. It is a number
	// of the switch's own: frames have no tags.
	VLAN uint16
	// FloodGroup, if not 0, keeps frames to groups and to unknown MACs from ports of the same group.
	FloodGroup uint8
	// LearnLimit is how many MACs are learned behind the port; 0: what its role has, NoLearning: none.
	LearnLimit int
	// Age is for how long a MAC that sends nothing stays learned; 0: what its role has.
	Age time.Duration
	// From bounds what comes from the device, whose reader pauses, and To what goes to it, by a queue. They are those
	// of Connect; Port.Update does not change them.
	From, To Limit
	// Filter says of each frame of the port that was found in order whether it may go on; nil: all may. It must not
	// block or change the frame.
	Filter func(*Frame) bool
	// Answer answers frames of the port that ask its own server for something, and returns true for them: they go no
	// further, and are no drops. It is asked before Filter. Nil: there is none. It must not block or change the frame.
	Answer func(*Frame) bool
}

// Switch is one network's layer 2. Its methods may be called by many goroutines at once.
type Switch struct {
	cfg Config

	mu     sync.Mutex // guards changes of table, of learned tables, of links, and closed
	closed bool
	mirror atomic.Pointer[mirrors] // nil: nobody is shown frames
	clock  func() time.Duration    // since the switch was made
	table  atomic.Pointer[table]
	policy atomic.Pointer[func(*Frame) bool] // nil: all may go on
}

// SetPolicy has f say of each frame that is not the gateway's, nor for it, whether it may go on; nil: all may. It must
// not block or change the frame.
func (s *Switch) SetPolicy(f func(*Frame) bool) {
	if f == nil {
		s.policy.Store(nil)
		return
	}
	s.policy.Store(&f)
}

// New returns a switch without ports.
func New(cfg Config) *Switch {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MTU <= 0 || cfg.MTU > MaxPayload-1 {
		cfg.MTU = MaxPayload - 1
	}
	s := &Switch{cfg: cfg, clock: monotonic()}
	s.table.Store(newTable())
	return s
}

// Connect plugs a device in. Frames for it come from now on; frames from it go to the port's Receive.
func (s *Switch) Connect(cfg PortConfig, dev Device) (*Port, error) {
	state, err := newPortState(cfg)
	if err != nil {
		return nil, err
	}
	p := &Port{sw: s, dev: dev, owner: cfg.Owner}
	p.floods.PerSecond, p.floods.Burst = floodRate, floodBurst
	p.state.Store(state)
	p.learned.Store(&learnedMACs{})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if err := s.checkMACFree(state.mac, nil); err != nil {
		return nil, err
	}
	if cfg.To.On() {
		p.dev = newLimited(s, dev, cfg.To)
	}
	s.change(func(t *table) { t.connect(p) })
	return p, nil
}

// checkMACFree returns an error where another port than p has a MAC. The caller holds mu.
func (s *Switch) checkMACFree(mac macKey, p *Port) error {
	if other := s.table.Load().own(mac); other != nil && other != p {
		return fmt.Errorf(
			"connect %v to network %s: %w (port %s)",
			other.state.Load().cfg.MAC,
			s.cfg.Name,
			ErrMACInUse,
			other.state.Load().cfg.Name,
		)
	}
	return nil
}

// change stores another table. The caller holds mu.
func (s *Switch) change(edit func(t *table)) {
	t := *s.table.Load()
	edit(&t)
	s.table.Store(&t)
}

// Locks are what has to be watched for hanging.
func (s *Switch) Locks() []watchdog.Lock {
	return []watchdog.Lock{watchdog.Mutex("switch", &s.mu, 0)}
}

// PortInfo is a port as `network inspect` shows it.
type PortInfo struct {
	Name     string
	MAC      net.HardwareAddr
	Addrs    []netip.Addr
	Role     Role
	Isolated bool
	Learned  []net.HardwareAddr // MACs seen behind a port that learns
	Static   []net.HardwareAddr // MACs that SetStatic was told of
	Stats    Stats
}

// Ports describes all ports, in order of connection.
func (s *Switch) Ports() []PortInfo {
	t := s.table.Load()
	list := make([]PortInfo, 0, len(t.ports))
	for _, p := range t.ports {
		c := p.state.Load().cfg
		list = append(list, PortInfo{
			Name:     c.Name,
			MAC:      slices.Clone(c.MAC),
			Addrs:    slices.Clone(c.Addrs),
			Role:     c.Role,
			Isolated: c.Isolated,
			Learned:  p.Learned(),
			Static:   p.Static(),
			Stats:    p.Stats(),
		})
	}
	return list
}

// Find returns the MAC of the port that may send from an address (PortConfig.Addrs).
func (s *Switch) Find(a netip.Addr) (mac [6]byte, ok bool) {
	p := s.table.Load().at(a)
	if p == nil {
		return mac, false
	}
	return p.state.Load().mac.mac(), true
}

// DropCount is how many frames were dropped, with labels: of which network and container, and why.
type DropCount struct {
	Network, Container, Reason string
	Frames                     uint64
}

// Drops are the counts of all ports that are connected.
func (s *Switch) Drops() []DropCount {
	var list []DropCount
	for _, p := range s.table.Load().ports {
		name := p.state.Load().cfg.Name
		for r := range numReasons {
			if n := p.drops[r].Load(); n > 0 {
				list = append(list, DropCount{Network: s.cfg.Name, Container: name, Reason: r.String(), Frames: n})
			}
		}
	}
	return list
}

// Close disconnects all ports. It does not close their devices.
func (s *Switch) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, p := range s.table.Load().ports {
		if q, ok := p.dev.(*limited); ok {
			defer q.close() // it waits for no lock of this switch
		}
		p.closed.Store(true)
	}
	s.table.Store(newTable())
	return nil
}
