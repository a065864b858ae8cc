package routers

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/ndp"
)

// Bounds of what is kept of a link. A host has to know two routers at least (RFC 4861 section 6.3.4), and Linux makes
// 16 addresses of an interface from prefixes (net.ipv6.conf.max_addresses).
const (
	maxRouters  = 8
	maxPrefixes = 16
	maxServers  = 3 // of one router; resolvers use as many (resolv.conf(5))
)

// slaacBits is the length of a prefix that an address is made of: the other half follows from the MAC (RFC 2464
// section 4).
const slaacBits = 64

// minValid: a prefix is valid for two hours more, whatever an advertisement says that nobody has signed (RFC 4862
// section 5.5.3).
const minValid = 2 * time.Hour

// Table is what the routers of a link have announced. The zero value is one. Its methods may be called at the same
// time.
type Table struct {
	mu       sync.Mutex // guards the rest
	routers  []router
	prefixes []Prefix
	changed  chan struct{} // closed with the next advertisement; nil: nobody waits
}

type router struct {
	addr       netip.Addr
	until      time.Time
	preference ndp.Preference
	managed    bool
	servers    []netip.Addr
	serversEnd time.Time
}

// Prefix is one of the link's.
type Prefix struct {
	netip.Prefix
	OnLink, Autonomous bool
	Valid, Preferred   time.Time // until when
}

// View is what holds at a time.
type View struct {
	Router   netip.Addr // the default router's; invalid: there is none
	Managed  bool       // addresses are DHCPv6's to give
	Prefixes []Prefix
	DNS      []netip.Addr
	// Until is when something of it ends; zero: nothing does.
	Until time.Time
}

// Take takes an advertisement into account.
func (t *Table) Take(a *Advert) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.expire(now)
	t.takeRouter(a, now)
	for _, o := range a.body.Options {
		if p, ok := o.(*ndp.PrefixInformation); ok {
			t.takePrefix(p, now)
		}
	}
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// takeRouter keeps also one that is no default router: it may say how addresses are to be had, until another
// advertisement of its says otherwise.
func (t *Table) takeRouter(a *Advert, now time.Time) {
	i := slices.IndexFunc(t.routers, func(r router) bool { return r.addr == a.From })
	if i < 0 {
		if len(t.routers) >= maxRouters {
			return
		}
		i = len(t.routers)
		t.routers = append(t.routers, router{addr: a.From})
	}
	r := &t.routers[i]
	r.until = now.Add(a.body.RouterLifetime)
	r.preference, r.managed = a.body.RouterSelectionPreference, a.body.ManagedConfiguration
	for _, o := range a.body.Options {
		dns, ok := o.(*ndp.RecursiveDNSServer)
		if !ok {
			continue
		}
		r.servers, r.serversEnd = nil, now.Add(dns.Lifetime)
		for _, s := range dns.Servers[:min(len(dns.Servers), maxServers)] {
			if s.IsGlobalUnicast() || s.IsLinkLocalUnicast() {
				r.servers = append(r.servers, s)
			}
		}
	}
}

// takePrefix does RFC 4861 section 6.3.4 and RFC 4862 section 5.5.3.
func (t *Table) takePrefix(p *ndp.PrefixInformation, now time.Time) {
	if !p.Prefix.Is6() || p.PrefixLength > 128 || p.PreferredLifetime > p.ValidLifetime {
		return
	}
	prefix := netip.PrefixFrom(p.Prefix, int(p.PrefixLength)).Masked()
	if a := prefix.Addr(); a.IsLinkLocalUnicast() || a.IsMulticast() || a.Is4In6() || prefix.Bits() == 0 {
		return
	}
	i := slices.IndexFunc(t.prefixes, func(have Prefix) bool { return have.Prefix == prefix })
	valid := p.ValidLifetime
	switch {
	case i < 0 && (valid == 0 || len(t.prefixes) >= maxPrefixes):
		return
	case i < 0:
		i = len(t.prefixes)
		t.prefixes = append(t.prefixes, Prefix{Prefix: prefix})
	default:
		valid = max(valid, min(t.prefixes[i].Valid.Sub(now), minValid))
	}
	have := &t.prefixes[i]
	have.OnLink, have.Autonomous = p.OnLink, p.AutonomousAddressConfiguration
	have.Valid, have.Preferred = now.Add(valid), now.Add(p.PreferredLifetime)
}

// expire drops what has ended. A router without a lifetime stays for as long as there is room: of what it says, the
// default route alone has a lifetime.
func (t *Table) expire(now time.Time) {
	t.prefixes = slices.DeleteFunc(t.prefixes, func(p Prefix) bool { return !p.Valid.After(now) })
	if len(t.routers) >= maxRouters {
		t.routers = slices.DeleteFunc(t.routers, func(r router) bool { return !r.until.After(now) })
	}
}

// View is what holds now, and changed is closed with the next advertisement.
func (t *Table) View(now time.Time) (v View, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	ends := func(at time.Time) bool {
		if !at.After(now) {
			return true
		}
		if v.Until.IsZero() || at.Before(v.Until) {
			v.Until = at
		}
		return false
	}
	var best *router
	for i := range t.routers {
		r := &t.routers[i]
		v.Managed = v.Managed || r.managed
		if !ends(r.until) && (best == nil || rank(r.preference) > rank(best.preference)) {
			best = r
		}
		if len(r.servers) > 0 && !ends(r.serversEnd) {
			v.DNS = append(v.DNS, r.servers...)
		}
	}
	if best != nil {
		v.Router = best.addr
	}
	for _, p := range t.prefixes {
		ends(p.Valid)
		ends(p.Preferred)
	}
	v.Prefixes = slices.Clone(t.prefixes)
	// Those first that are preferred for the longest; the order of others stays.
	slices.SortStableFunc(v.Prefixes, func(a, b Prefix) int {
		return cmp.Compare(boolInt(a.Preferred.After(now)), boolInt(b.Preferred.After(now))) * -1
	})
	return v, t.changed
}

// rank orders the preferences of RFC 4191 section 2.1: their numbers do not. The reserved one means medium.
func rank(p ndp.Preference) int {
	switch p {
	case ndp.High:
		return 1
	case ndp.Low:
		return -1
	}
	return 0
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Of is the prefix with which a subnet is announced.
func (v *View) Of(subnet netip.Prefix) (Prefix, bool) {
	for _, p := range v.Prefixes {
		if p.Prefix == subnet {
			return p, true
		}
	}
	return Prefix{}, false
}

// Address is the one of a prefix that follows from a MAC address; invalid: stations make none of it.
func (p *Prefix) Address(mac net.HardwareAddr) netip.Addr {
	if !p.Autonomous || p.Bits() != slaacBits || len(mac) != 6 {
		return netip.Addr{}
	}
	a := p.Addr().As16()
	copy(a[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
	return netip.AddrFrom16(a)
}

// Addresses are all those that a station makes itself, the preferred ones first.
func (v *View) Addresses(mac net.HardwareAddr) (list []netip.Addr) {
	for i := range v.Prefixes {
		if a := v.Prefixes[i].Address(mac); a.IsValid() {
			list = append(list, a)
		}
	}
	return list
}

// Equal says whether two views differ in nothing but how long it holds.
func (v *View) Equal(o *View) bool {
	same := func(a, b Prefix) bool {
		return a.Prefix == b.Prefix && a.OnLink == b.OnLink && a.Autonomous == b.Autonomous
	}
	return v.Router == o.Router && v.Managed == o.Managed && slices.Equal(v.DNS, o.DNS) &&
		slices.EqualFunc(v.Prefixes, o.Prefixes, same)
}
