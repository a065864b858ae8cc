package evpn

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/internal/rate"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/bgp"
	"github.com/usernet/usernet/overlay/fabric"
)

// Speaker is what is needed of a BGP speaker; *bgp.Speaker is one.
type Speaker interface {
	ASN() uint32
	RouterID() netip.Addr
	Addr() netip.Addr // of this host's VTEP
	Set(name string, routes []bgp.Route)
	Learned() []bgp.Route
}

// Config is a network of the fabric.
type Config struct {
	ID, Name string
	VNI      uint32
	// Targets are the route targets of its routes, and those by which others' are its own. None: announced is
	// bgp.AutoTarget, and others' are those of this VNI with the target of any AS.
	Targets []bgp.Target
}

// Endpoint is a container's interface on a network.
type Endpoint struct {
	Network string // id
	MAC     overlay.MAC
	Addrs   []netip.Addr
}

// Tell is called with the VTEPs that frames to all go to, and with what is behind which VTEP; both are the callee's to
// keep. Ports are 0.
type Tell func(vteps []netip.AddrPort, entries []fabric.ForeignEntry) error

// Set is the networks of this host that are part of a fabric. Make it with New. Its methods may be called at the same
// time.
type Set struct {
	log    *slog.Logger
	wake   chan struct{} // has a value when something has changed
	cancel context.CancelFunc
	ended  sync.WaitGroup
	// warnings bounds what is logged of others' routes, which change as often as their routers like; run's own.
	warnings rate.Bucket

	mu         sync.Mutex // guards the rest
	speaker    Speaker    // nil before Start
	networks   map[string]*member
	containers map[string][]Endpoint
}

// member is a network.
type member struct {
	Config
	rd   bgp.RD
	tell Tell
	own  map[overlay.MAC]*ownMAC
	said string // the error of the last tell, which is logged once
}

// New returns an empty set.
func New(log *slog.Logger) *Set {
	return &Set{
		log:        log,
		warnings:   rate.Bucket{PerSecond: 1, Burst: 10},
		wake:       make(chan struct{}, 1),
		cancel:     func() {},
		networks:   map[string]*member{},
		containers: map[string][]Endpoint{},
	}
}

// Start begins to tell networks what a speaker learns, and the speaker what they have. It comes before the first Join.
func (s *Set) Start(speaker Speaker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	s.speaker, s.cancel = speaker, cancel
	s.ended.Go(func() { s.run(ctx) })
	s.Wake()
}

// Close ends what Start began, and waits for it. Closing again does nothing.
func (s *Set) Close() {
	s.mu.Lock()
	cancel := s.cancel
	s.mu.Unlock()
	cancel()
	s.ended.Wait()
}

// Wake has the set look at the speaker's routes again. It does not wait.
func (s *Set) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Join makes a network part of the fabric, until leave is called: tell is called again and again by a goroutine of the
// set, once or not at all while leave is called.
func (s *Set) Join(cfg Config, tell Tell) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &member{Config: cfg, tell: tell, own: map[overlay.MAC]*ownMAC{}}
	m.rd = s.distinguisher(cfg.VNI)
	s.networks[cfg.ID] = m
	s.Wake()
	return func() { s.leave(m) }
}

// distinguisher is a route distinguisher that no other network of this host has. The caller holds mu.
func (s *Set) distinguisher(vni uint32) bgp.RD {
	used := map[bgp.RD]bool{}
	for _, m := range s.networks {
		used[m.rd] = true
	}
	router := s.speaker.RouterID()
	number := uint16(vni) // where people can, they see the VNI in it
	for used[bgp.IPv4RD(router, number)] {
		number++
	}
	return bgp.IPv4RD(router, number)
}

func (s *Set) leave(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.networks[m.ID] == m {
		delete(s.networks, m.ID)
		s.speaker.Set(m.name(), nil)
	}
}

// name is what the speaker has the network's routes by.
func (m *member) name() string { return "evpn/" + m.ID }

// SetContainer says which endpoints a container of this host has, in the place of what was said before; none: it has
// ended.
func (s *Set) SetContainer(id string, endpoints []Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(endpoints) == 0 {
		if len(s.containers[id]) == 0 {
			return
		}
		delete(s.containers, id)
	} else {
		s.containers[id] = endpoints
	}
	s.Wake()
}

// minPause is what changes that follow each other are collected for.
const minPause = 50 * time.Millisecond

// run makes everything anew after changes. Those that come together are one, and between two there is a pause that is
// as long as the work was: a router whose routes change all the time costs half a processor at most.
func (s *Set) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		began := time.Now()
		isolate.Do(s.log, "routes of EVPN", s.update)
		pause := time.NewTimer(max(minPause, time.Since(began)))
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// look reads the speaker's routes, and tells it those of the networks.
func (s *Set) look() map[*member]*view {
	s.mu.Lock()
	defer s.mu.Unlock()
	views := s.views()
	for m, v := range views {
		m.announce(s, v)
	}
	return views
}

// update brings announced routes and networks in line with what is known.
func (s *Set) update() {
	for m, v := range s.look() {
		err := m.tell(v.vteps, v.entries())
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != m.said && text != "" && s.warnings.Allow(time.Now(), 1) {
			s.log.Warn("not all routes of EVPN can be used", "network", m.Name, "error", err)
		}
		m.said = text
	}
}

// announce tells the speaker what the network has. The caller holds the set's mu.
func (m *member) announce(s *Set, v *view) {
	self := s.speaker.Addr()
	targets := m.Targets
	if len(targets) == 0 {
		targets = []bgp.Target{bgp.AutoTarget(s.speaker.ASN(), m.VNI)}
	}
	path := bgp.Path{Label: m.VNI, Targets: targets, VXLAN: true}
	all := path
	all.Ingress = true
	routes := []bgp.Route{{
		NLRI: bgp.NLRI{Family: bgp.EVPN, EVPN: bgp.EVPNRoute{Type: bgp.Multicast, RD: m.rd, IP: self}},
		Path: all,
	}}
	here := map[overlay.MAC]*ownMAC{}
	for _, endpoints := range s.containers {
		for _, e := range endpoints {
			if e.Network != m.ID || here[e.MAC] != nil {
				continue
			}
			o := m.own[e.MAC]
			if o == nil {
				o = &ownMAC{claim: claim{at: self}}
			}
			here[e.MAC] = o
			if o.decide(v.claim(e.MAC)) && s.warnings.Allow(time.Now(), 1) {
				s.log.Warn("the MAC of a container is announced by another VTEP too, and is not announced here any more",
					"network", m.Name, "mac", e.MAC)
			}
			if !o.yielded {
				path.Sequence = o.sequence
				routes = append(routes, m.macRoutes(e, path)...)
			}
		}
	}
	m.own = here
	s.speaker.Set(m.name(), routes)
}

// macRoutes are those of an endpoint: one for each of its addresses, or one for the MAC alone.
func (m *member) macRoutes(e Endpoint, path bgp.Path) []bgp.Route {
	nlri := bgp.NLRI{Family: bgp.EVPN, EVPN: bgp.EVPNRoute{Type: bgp.MACIP, RD: m.rd, MAC: e.MAC}}
	if len(e.Addrs) == 0 {
		return []bgp.Route{{NLRI: nlri, Path: path}}
	}
	var list []bgp.Route
	for _, a := range e.Addrs {
		nlri.EVPN.IP = a
		list = append(list, bgp.Route{NLRI: nlri, Path: path})
	}
	return list
}
