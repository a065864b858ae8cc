package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds and times.
const (
	// MaxLearned is how many routes of one neighbour are kept; what is above is counted and not used.
	MaxLearned = 1 << 16
	// MaxNeighbors is how many there may be.
	MaxNeighbors = 16
	// StaleTime is how long the routes of a neighbour stay that is lost: FRR's default restart time.
	StaleTime = 120 * time.Second
	// DefaultHold is the hold time that is proposed (RFC 4271, section 10).
	DefaultHold = 90 * time.Second
	// MinHold and MaxHold bound it (RFC 4271, section 4.2). A time of 0, without keepalives, is not proposed.
	MinHold, MaxHold = 3 * time.Second, 0xffff * time.Second
	// DefaultPort is where neighbours take connections (RFC 4271, section 8).
	DefaultPort = 179
)

// Config says who the speaker is and whom it speaks to.
type Config struct {
	ASN      uint32
	RouterID netip.Addr // IPv4; differs from that of each neighbour
	// Addrs are this host's addresses that routes lead to, one of each family at most. Sessions come from them.
	Addrs []netip.Addr
	// VTEP is the one of Addrs that EVPN routes lead to. Invalid: the IPv4 address where there is one.
	VTEP      netip.Addr
	Neighbors []Neighbor
	Hold      time.Duration // 0: DefaultHold
	Logger    *slog.Logger  // nil: slog.Default
	// Changed is called when what Learned returns has changed. It must neither wait nor call the speaker. Nil: nobody
	// is told.
	Changed func()
}

// Neighbor is a router that the speaker connects to.
type Neighbor struct {
	Addr     netip.AddrPort // port 0: DefaultPort
	ASN      uint32         // 0: the speaker's own
	Password string         // of segments (RFC 2385); "": they are not signed
}

// Speaker speaks to all neighbours. Make it with New, end it with Close. Its methods may be called at the same time.
type Speaker struct {
	cfg       Config
	log       *slog.Logger
	addrs     addrs
	neighbors []*neighbor
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	ended     sync.WaitGroup

	// staleTime is StaleTime, and retry where the time between attempts begins; tests have less.
	staleTime, retry time.Duration

	mu  sync.Mutex // guards the rest, and what neighbours say it guards
	own map[string][]Route
	out map[NLRI]Path // made of own; nil: it has to be made anew. It never changes once it is made.
}

// check says what is wrong with a configuration, and fills in what was left out.
func (c *Config) check() (a addrs, err error) {
	for _, one := range c.Addrs {
		switch one = one.Unmap(); {
		case one.IsUnspecified() || one.IsMulticast():
			return a, fmt.Errorf("bgp: no route can lead to %v", one)
		case one.Is4() && !a.v4.IsValid():
			a.v4 = one
		case one.Is6() && !a.v6.IsValid():
			a.v6 = one
		default:
			return a, fmt.Errorf("bgp: two addresses of one family, %v: give one", one)
		}
	}
	switch {
	case c.ASN == 0:
		return a, errors.New("bgp: no AS number")
	case !c.RouterID.Is4() || c.RouterID.IsUnspecified():
		return a, errors.New("bgp: no router id: give one that looks like an IPv4 address")
	case len(c.Neighbors) == 0 || len(c.Neighbors) > MaxNeighbors:
		return a, fmt.Errorf("bgp: %d neighbours, and there may be 1 to %d", len(c.Neighbors), MaxNeighbors)
	case !a.v4.IsValid() && !a.v6.IsValid():
		return a, errors.New("bgp: no address that routes could lead to")
	}
	if a.v6First = c.VTEP.IsValid() && c.VTEP == a.v6; c.VTEP.IsValid() && c.VTEP != a.vtep() {
		return a, fmt.Errorf("bgp: EVPN routes cannot lead to %v, which is none of %v", c.VTEP, c.Addrs)
	}
	seen := map[netip.Addr]bool{}
	for i := range c.Neighbors {
		n := &c.Neighbors[i]
		if n.Addr.Port() == 0 {
			n.Addr = netip.AddrPortFrom(n.Addr.Addr(), DefaultPort)
		}
		if n.ASN == 0 {
			n.ASN = c.ASN
		}
		switch to := n.Addr.Addr(); {
		case !to.IsValid() || to.IsUnspecified() || to.IsMulticast() || seen[to]:
			return a, fmt.Errorf("bgp: %v is no neighbour, or is one twice", n.Addr)
		case len(n.Password) > MaxPassword:
			return a, fmt.Errorf("bgp: a password of %d bytes, and it may have %d", len(n.Password), MaxPassword)
		}
		seen[n.Addr.Addr()] = true
	}
	if c.Hold == 0 {
		c.Hold = DefaultHold
	}
	if c.Hold < MinHold || c.Hold > MaxHold {
		return a, fmt.Errorf("bgp: a hold time of %v: give 3s to 65535s", c.Hold)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	return a, nil
}

// New starts to connect to the neighbours.
func New(cfg Config) (*Speaker, error) { return newSpeaker(cfg, StaleTime, firstRetry) }

func newSpeaker(cfg Config, staleTime, retry time.Duration) (*Speaker, error) {
	cfg.Neighbors = slices.Clone(cfg.Neighbors)
	a, err := cfg.check()
	if err != nil {
		return nil, err
	}
	s := &Speaker{
		cfg: cfg, log: cfg.Logger, addrs: a, own: map[string][]Route{}, staleTime: staleTime, retry: retry,
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, c := range cfg.Neighbors {
		n := newNeighbor(s, c)
		s.neighbors = append(s.neighbors, n)
		s.ended.Go(n.run)
	}
	return s, nil
}

// Close ends all sessions. Neighbours are told that this is meant, and withdraw what was announced. Closing again does
// nothing.
func (s *Speaker) Close() {
	s.cancel()
	s.ended.Wait()
	for _, n := range s.neighbors {
		n.purge.Stop()
	}
}

// ASN is the speaker's.
func (s *Speaker) ASN() uint32 { return s.cfg.ASN }

// RouterID is the speaker's.
func (s *Speaker) RouterID() netip.Addr { return s.cfg.RouterID }

// Addr is where EVPN routes lead to.
func (s *Speaker) Addr() netip.Addr { return s.addrs.vtep() }

// Set says what is announced in the name of something, in the place of what was said by that name before; none: nothing
// any more. Where two names have one NLRI, it is announced until both are gone.
func (s *Speaker) Set(name string, routes []Route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(routes) == 0 {
		if len(s.own[name]) == 0 {
			return
		}
		delete(s.own, name)
	} else {
		s.own[name] = slices.Clone(routes)
	}
	s.out = nil
	for _, n := range s.neighbors {
		n.tell()
	}
}

// outgoing is all that is announced. It must not be changed.
func (s *Speaker) outgoing() map[NLRI]Path {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == nil {
		s.out = map[NLRI]Path{}
		for _, name := range slices.Sorted(maps.Keys(s.own)) { // so that of two paths it is always the same
			for _, r := range s.own[name] {
				if _, is := s.out[r.NLRI]; !is {
					s.out[r.NLRI] = r.Path
				}
			}
		}
	}
	return s.out
}

// Learned are the EVPN routes of all neighbours, also of those that were lost lately, in no order.
func (s *Speaker) Learned() []Route {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Route
	for _, n := range s.neighbors {
		for nlri, l := range n.learned {
			list = append(list, Route{nlri, l.path})
		}
	}
	return list
}

// State is what is known of a neighbour.
type State struct {
	Addr        netip.AddrPort
	ASN         uint32
	Established bool
	Since       time.Time // of being as it is
	Error       string    // why the last session or attempt ended
	Families    []Family  // that both speak
	Learned     int       // routes
	Announced   int
	Withheld    map[string]int // routes that it is not told, by reason; it never changes
	// Ignored counts routes above MaxLearned, and of kinds that are not used. Malformed counts UPDATEs whose routes
	// count as withdrawn.
	Ignored, Malformed uint64
}

// States describes the neighbours as they were configured.
func (s *Speaker) States() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []State
	for _, n := range s.neighbors {
		st := n.state
		st.Learned = len(n.learned)
		list = append(list, st)
	}
	return list
}
