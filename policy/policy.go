package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// special are addresses that stand for the machine or its cloud rather than for somebody: link-local ones (RFC 3927,
// RFC 4291), at which clouds have their metadata services with the machine's credentials, and those that some clouds
// have elsewhere. Rules open them only when they name addresses within.
var special = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fd00:ec2::254/128"),  // Amazon EC2 over IPv6
	netip.MustParsePrefix("fd20:ce::254/128"),   // Google Compute Engine over IPv6
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure's WireServer, with the machine's certificates
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba Cloud
	netip.MustParsePrefix("192.0.0.192/32"),     // Oracle Cloud's older machines
}

// Refusal says why a destination is refused. Refusals are made in advance, so that refusing costs nothing.
type Refusal struct{ Rule string }

// Error is the reason.
func (r *Refusal) Error() string { return r.Rule }

var (
	refusedSpecial = &Refusal{"link-local and metadata addresses are refused unless --allow-egress names them"}
	refusedDenied  = &Refusal{"--egress deny, and no --allow-egress is for it"}
	refusedName    = &Refusal{
		"--egress deny, and no --allow-egress names it: give --allow-egress NAME, or dns for all names",
	}
)

const (
	// grace is how long an address is kept beyond its answer's TTL: a program may take that long from answer to
	// connection.
	grace = 30 * time.Second
	// flowIdle is how long a datagram keeps the way open for the next one to the same address, beyond the answer's
	// TTL: there is no telling when what the datagrams are part of ends. RFC 4787 REQ-5 has NATs keep mappings for 2
	// minutes at least.
	flowIdle = 2 * time.Minute
	// maxPinned bounds the addresses of one Policy. A container can have names answered with addresses of its choice.
	maxPinned = 4096
	// maxRules bounds the rules of one Policy: each decision goes through them.
	maxRules = 64
)

// Policy decides for one container on one network. The nil Policy allows what is not special.
type Policy struct {
	mode  Mode
	rules []Rule
	named bool // a rule is for a name
	start time.Time
	now   func() time.Time

	mu     sync.RWMutex // guards pinned, and pins but for their flow
	pinned map[netip.Addr]*pin
}

// pin is which rules' names an address was given for, and until when.
type pin struct {
	rules [maxRules]int64 // by Policy.clock
	last  int64           // the latest of them
	flow  atomic.Int64    // until when datagrams may go on to be sent
}

// New makes a policy. Rules beyond the 64th are an error.
func New(mode Mode, rules []Rule) (*Policy, error) {
	if len(rules) > maxRules {
		return nil, fmt.Errorf(
			"%d egress rules: %d are possible; give subnets or wildcards instead of single ones",
			len(rules),
			maxRules,
		)
	}
	p := &Policy{mode: mode, rules: rules, start: time.Now(), now: time.Now, pinned: map[netip.Addr]*pin{}}
	for _, r := range rules {
		p.named = p.named || !r.prefix.IsValid() && !r.dns
	}
	return p, nil
}

// Inherit takes over which addresses the container was given for names from the policy that p has replaced, as far as
// both have the same rules: programs keep answers, and do not ask again because a rule has changed.
func (p *Policy) Inherit(old *Policy) {
	if p == nil || old == nil || !p.named || p == old {
		return
	}
	later := int64(p.start.Sub(old.start))
	old.mu.RLock()
	defer old.mu.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	for i := range p.rules {
		j := slices.IndexFunc(old.rules, func(r Rule) bool { return r.text == p.rules[i].text })
		if j < 0 {
			continue
		}
		for a, one := range old.pinned {
			if until := one.rules[j] - later; one.rules[j] != 0 && until >= now {
				p.add(a, i, until, now)
			}
		}
	}
	for a, one := range p.pinned {
		if before := old.pinned[a]; before != nil {
			one.flow.Store(max(one.flow.Load(), before.flow.Load()-later))
		}
	}
}

// clock is how many nanoseconds the policy is old, beginning with 1. Nobody who sets the machine's clock changes it.
func (p *Policy) clock() int64 { return int64(p.now().Sub(p.start)) + 1 }

// Pin notes that the container got an answer in which name has these addresses, valid for ttl.
func (p *Policy) Pin(name string, addrs []netip.Addr, ttl time.Duration) {
	if p == nil || !p.named || len(addrs) == 0 {
		return
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	now := p.clock()
	until := now + int64(max(ttl, 0)+grace)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.rules {
		if !p.rules[i].names(name) {
			continue
		}
		for _, a := range addrs {
			if a = a.Unmap(); !Special(a) && !a.IsLoopback() {
				p.add(a, i, until, now)
			}
		}
	}
}

// add notes one address for one rule. The caller holds p.mu.
func (p *Policy) add(a netip.Addr, rule int, until, now int64) {
	one := p.pinned[a]
	if one == nil {
		if len(p.pinned) >= maxPinned {
			p.makeRoom(now)
		}
		one = &pin{}
		p.pinned[a] = one
	}
	one.rules[rule] = max(one.rules[rule], until)
	one.last = max(one.last, until)
}

// makeRoom removes the pins that have expired and the eighth of the others that expires first, so that it is not done
// for each answer of a container that asks for ever more. The caller holds p.mu.
func (p *Policy) makeRoom(now int64) {
	ends := make([]int64, 0, len(p.pinned))
	for _, one := range p.pinned {
		ends = append(ends, one.end())
	}
	slices.Sort(ends)
	cut := max(now, ends[len(ends)/8]+1)
	for a, one := range p.pinned {
		if one.end() < cut {
			delete(p.pinned, a)
		}
	}
}

// end is when the pin expires.
func (p *pin) end() int64 { return max(p.last, p.flow.Load()) }

// Decide returns nil where the container may send to dst, else a *Refusal. proto is that of the IP header; for ICMP the
// port means nothing. It allocates nothing.
func (p *Policy) Decide(proto uint8, dst netip.AddrPort) error {
	if v := p.judge(proto, dst, ""); v.Refusal != nil {
		return v.Refusal
	} else if v.pinned && proto != unix.IPPROTO_TCP {
		p.keepOpen(dst.Addr().Unmap())
	}
	return nil
}

// judge decides. A destination that was not pinned counts as pinned for name, unless that is empty.
func (p *Policy) judge(proto uint8, dst netip.AddrPort, name string) Verdict {
	a := dst.Addr().Unmap()
	out := Special(a)
	if p == nil {
		if out {
			return Verdict{Refusal: refusedSpecial}
		}
		return Verdict{}
	}
	if !out && !p.mode.Denies() {
		return Verdict{}
	}
	for i := range p.rules {
		r := &p.rules[i]
		if r.prefix.IsValid() && r.prefix.Contains(a) && r.carries(proto, dst.Port()) &&
			(!out || isSpecialPrefix(r.prefix)) {
			return Verdict{Rule: r}
		}
	}
	if out {
		return Verdict{Refusal: refusedSpecial}
	}
	if p.named {
		if r := p.pinnedRule(a, proto, dst.Port()); r != nil {
			return Verdict{Rule: r, pinned: true}
		}
		for i := range p.rules {
			if r := &p.rules[i]; name != "" && r.names(name) && r.carries(proto, dst.Port()) && !a.IsLoopback() {
				return Verdict{Rule: r}
			}
		}
	}
	return Verdict{Refusal: refusedDenied}
}

// AllowQuery returns nil where the container may ask servers outside for name, which is in lower case and has no dot
// at its end, else a *Refusal. Where the question is which name an address has, addr is that address, else it is
// invalid.
func (p *Policy) AllowQuery(name string, addr netip.Addr) error {
	if p == nil || !p.mode.Denies() {
		return nil
	}
	addr = addr.Unmap()
	for i := range p.rules {
		if r := &p.rules[i]; r.dns || r.names(name) || addr.IsValid() && r.prefix.IsValid() && r.prefix.Contains(addr) {
			return nil
		}
	}
	return refusedName
}

// pinnedRule returns the rule for a name of which the container got a as the address, where the answer is still valid;
// nil: there is none.
func (p *Policy) pinnedRule(a netip.Addr, proto uint8, port uint16) *Rule {
	p.mu.RLock()
	defer p.mu.RUnlock()
	one := p.pinned[a]
	if one == nil {
		return nil
	}
	now := p.clock()
	going := proto != unix.IPPROTO_TCP && one.flow.Load() >= now
	for i := range p.rules {
		if until := one.rules[i]; until != 0 && (until >= now || going) && p.rules[i].carries(proto, port) {
			return &p.rules[i]
		}
	}
	return nil
}

// keepOpen keeps the way open for the datagrams that follow one to a.
func (p *Policy) keepOpen(a netip.Addr) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if one := p.pinned[a]; one != nil {
		one.flow.Store(p.clock() + int64(flowIdle))
	}
}

// Special says whether an address stands for the machine or its cloud: names do not open it.
func Special(a netip.Addr) bool {
	for _, s := range special {
		if s.Contains(a) {
			return true
		}
	}
	return false
}

// isSpecialPrefix says whether a rule names special addresses rather than including them among many.
func isSpecialPrefix(p netip.Prefix) bool {
	for _, s := range special {
		if s.Bits() <= p.Bits() && s.Contains(p.Addr()) {
			return true
		}
	}
	return false
}
