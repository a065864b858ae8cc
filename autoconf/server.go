package autoconf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	vswitch "github.com/usernet/usernet/switch"
)

// Config says what guests are told. Fields that are left zero are not told.
type Config struct {
	// Router is the MAC address of the network's gateway. Frames leave in its name, so that guests learn it.
	Router net.HardwareAddr

	// Subnet4 is the IPv4 subnet; invalid: there is no DHCPv4 server.
	Subnet4 netip.Prefix
	// Router4 is the default gateway and the server's identifier.
	Router4 netip.Addr
	// First4 and Last4 are the pool, both included. A pool of one is the guest's, also with another MAC address.
	First4, Last4 netip.Addr

	// Prefix6 is the prefix that guests make their addresses of (RFC 4862), 64 bits long; invalid: no advertisements,
	// but DHCPv6 for those who ask without.
	Prefix6 netip.Prefix
	// Address6 is what DHCPv6 gives to every guest that asks; invalid: there is no DHCPv6 server.
	Address6 netip.Addr
	// Assigned6 has guests get their addresses by DHCPv6 alone. Prefix6 may have any length then.
	Assigned6 bool
	// NoRoute gives guests no default route: nothing leads out of the network.
	NoRoute bool

	DNS    []netip.Addr
	Search []string
	MTU    int
	// Hostname is what the guest is called (DHCP option 12), FQDN its full name (options 81 of DHCP, 39 of DHCPv6); "":
	// it is not told.
	Hostname, FQDN string
	// Lease is how long an address may be used without asking again. 0: DefaultLease.
	Lease time.Duration
}

// DefaultLease is libslirp's: a day.
const DefaultLease = 24 * time.Hour

// solicitedRate bounds answers to router solicitations. RFC 4861 section 6.2.6 has one multicast advertisement in three
// seconds; these are unicast, and a guest that restarts its interface must not wait.
const (
	solicitedRate  = rate.Limit(10)
	solicitedBurst = 10
)

// Server is the device behind a switch port. Its methods may be called by many goroutines at once.
type Server struct {
	cfg       Config
	out       atomic.Pointer[Output]
	solicited *rate.Limiter

	leases struct {
		sync.Mutex
		byMAC  map[[6]byte]netip.Addr
		byAddr map[netip.Addr]lease
	}
}

// lease is an IPv4 address given to a guest.
type lease struct {
	mac     [6]byte
	expires time.Time
}

var _ vswitch.Device = (*Server)(nil)

// New returns a server that answers nothing until SetPort.
func New(cfg Config) (*Server, error) {
	if len(cfg.Router) != 6 {
		return nil, fmt.Errorf("autoconf: the router's MAC address %q has not 6 bytes", cfg.Router)
	}
	if cfg.Subnet4.IsValid() && (!cfg.Subnet4.Contains(cfg.First4) || !cfg.Subnet4.Contains(cfg.Last4) ||
		cfg.Last4.Less(cfg.First4)) {
		return nil, fmt.Errorf("autoconf: the pool %s-%s is not in the subnet %s", cfg.First4, cfg.Last4, cfg.Subnet4)
	}
	if cfg.Prefix6.IsValid() && cfg.Prefix6.Bits() != 64 && !cfg.Assigned6 {
		return nil, errors.New(
			"autoconf: stateless address configuration needs a prefix of 64 bits (RFC 4862 section 5.5.3)",
		)
	}
	if cfg.Lease <= 0 {
		cfg.Lease = DefaultLease
	}
	s := &Server{cfg: cfg, solicited: rate.NewLimiter(solicitedRate, solicitedBurst)}
	s.leases.byMAC = map[[6]byte]netip.Addr{}
	s.leases.byAddr = map[netip.Addr]lease{}
	return s, nil
}

// MAC is the address of the server's own switch port: locally administered, next to the router's.
func (s *Server) MAC() net.HardwareAddr {
	mac := append(net.HardwareAddr(nil), s.cfg.Router...)
	mac[0] = mac[0]&^1 | 2
	mac[1] ^= 0x10
	return mac
}

// Output takes frames of the server. It must not keep them. *vswitch.Port is one.
type Output interface{ Receive(f *vswitch.Frame) }

// SetPort says where answers leave. A switch port must be a trusted one, as they carry the router's MAC address.
func (s *Server) SetPort(o Output) { s.out.Store(&o) }

// Run sends a router advertisement at once and then at the interval of RFC 4861 section 6.2.1, until ctx ends.
func (s *Server) Run(ctx context.Context) {
	if !s.cfg.Prefix6.IsValid() {
		return
	}
	tick := time.NewTicker(maxRtrAdvInterval)
	defer tick.Stop()
	for {
		s.advertise(nil, netip.Addr{})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// WriteFrame implements vswitch.Device: it answers what a guest asks, on the guest's goroutine.
func (s *Server) WriteFrame(f *vswitch.Frame) error {
	s.Answer(f)
	return nil
}

// Answer answers a frame that asks for configuration, and says whether it is one.
func (s *Server) Answer(f *vswitch.Frame) (asks bool) {
	if s.out.Load() == nil || len(f.Payload) != 1 {
		return false
	}
	p := f.Payload[0]
	switch f.EtherType() {
	case vswitch.EtherTypeIPv4:
		if payload, ok := udpv4(p, serverPort4); ok && s.cfg.Subnet4.IsValid() {
			s.answer4(payload)
			return true
		}
	case vswitch.EtherTypeIPv6:
		mac := net.HardwareAddr(f.Ethernet()[6:12])
		if from, ok := solicitation(p); ok && s.cfg.Prefix6.IsValid() {
			if s.solicited.Allow() {
				s.advertise(mac, from)
			}
			return true
		} else if from, payload, ok := udpv6(p, serverPort6); ok && s.cfg.Address6.IsValid() {
			s.answer6(mac, from, payload)
			return true
		}
	}
	return false
}

// send lets a packet leave in the router's name.
func (s *Server) send(to net.HardwareAddr, etherType uint16, packet []byte) {
	out := s.out.Load()
	if out == nil {
		return
	}
	var f vswitch.Frame
	eth := f.Ethernet()
	copy(eth, to)
	copy(eth[6:], s.cfg.Router)
	eth[12], eth[13] = byte(etherType>>8), byte(etherType)
	f.Payload = [][]byte{packet}
	(*out).Receive(&f)
}
