package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Bounds of a network's rules about its containers.
const (
	maxNeighbourRules = 64 // one bit each in an identity's masks
	maxTerms          = 8  // of one selector
	// maxTerm is the length of a term in bytes: other hosts of a cluster take none that is longer.
	maxTerm = 255
)

// Selector names containers of a network by what holds for them: all of its terms. A term is KEY=VALUE of a label,
// name=NAME of the container, or network=NAME of one of its networks. None: any container.
type Selector []string

// parseSelector reads "*" or TERM[,TERM...].
func parseSelector(s string) (Selector, error) {
	if s == "*" {
		return nil, nil
	}
	terms := strings.Split(s, ",")
	if len(terms) > maxTerms {
		return nil, fmt.Errorf("%q has %d terms: %d are possible", s, len(terms), maxTerms)
	}
	for _, t := range terms {
		if len(t) > maxTerm {
			return nil, fmt.Errorf("%.40q... has %d bytes: %d are possible", t, len(t), maxTerm)
		}
		key, value, is := strings.Cut(t, "=")
		if never := value == "" && (key == "name" || key == "network"); never || !is || key == "" {
			return nil, fmt.Errorf("%q: give * for all containers, or LABEL=VALUE, name=NAME or network=NAME, "+
				"with commas between", s)
		}
	}
	return terms, nil
}

// matches says whether all terms are among those that hold.
func (s Selector) matches(holds []string) bool {
	for _, t := range s {
		if !slices.Contains(holds, t) {
			return false
		}
	}
	return true
}

// neighbourRule is one rule about who may send to whom.
type neighbourRule struct {
	refusal  Refusal // has the text
	deny     bool
	from, to Selector
	any      bool // any protocol and port
	proto    uint8
	low      uint16 // ports; 0: any
	high     uint16
}

// NeighbourRules are rules about which containers of a network reach each other. The first one that is about a packet
// decides. Their text is what ParseNeighbourRules reads. They never change.
type NeighbourRules struct {
	text  string
	rules []neighbourRule
	deny  bool // what no rule is about is refused
}

var refusedNeighbour = &Refusal{"default deny, and no rule of the network's policy allows it"}

// ParseNeighbourRules reads rules, each on a line or with ; between:
//
//	default deny|allow
//	allow|deny SELECTOR -> SELECTOR[:PORT[-PORT]][/tcp|udp|icmp]
func ParseNeighbourRules(text string) (*NeighbourRules, error) {
	p := &NeighbourRules{}
	var lines []string
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		line = strings.Join(strings.Fields(line), " ")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) {
			return nil, fmt.Errorf("policy rule %q: control characters, or bytes that are not UTF-8", line)
		}
		lines = append(lines, line)
		if err := p.add(line); err != nil {
			return nil, fmt.Errorf("policy rule %q: %w", line, err)
		}
	}
	if len(p.rules) > maxNeighbourRules {
		return nil, fmt.Errorf("%d policy rules: %d are possible", len(p.rules), maxNeighbourRules)
	}
	p.text = strings.Join(lines, "; ")
	return p, nil
}

func (p *NeighbourRules) add(line string) error {
	action, rest, _ := strings.Cut(line, " ")
	switch {
	case line == "default deny":
		p.deny = true
		return nil
	case line == "default allow":
		p.deny = false
		return nil
	case action != "allow" && action != "deny":
		return fmt.Errorf("give default deny, default allow, or allow or deny and FROM -> TO")
	}
	from, to, is := strings.Cut(rest, " -> ")
	if !is {
		return fmt.Errorf("give FROM -> TO, such as app=web -> app=db:5432/tcp")
	}
	r := neighbourRule{refusal: Refusal{line}, deny: action == "deny"}
	var err error
	if r.from, err = parseSelector(from); err != nil {
		return err
	}
	if to, err = r.service(to); err != nil {
		return err
	}
	if r.to, err = parseSelector(to); err != nil {
		return err
	}
	p.rules = append(p.rules, r)
	return nil
}

// service reads the ports and protocol at the end of a rule, and returns what is before them.
func (r *neighbourRule) service(s string) (string, error) {
	s, proto, hasProto := strings.Cut(s, "/")
	switch {
	case !hasProto:
	case proto == "tcp":
		r.proto = unix.IPPROTO_TCP
	case proto == "udp":
		r.proto = unix.IPPROTO_UDP
	case proto == "icmp":
		r.proto = unix.IPPROTO_ICMP
	default:
		return "", fmt.Errorf("protocol %q: give tcp, udp or icmp", proto)
	}
	s, ports, hasPorts := strings.Cut(s, ":")
	r.any = !hasProto && !hasPorts
	if !hasPorts {
		return s, nil
	}
	low, high, isRange := strings.Cut(ports, "-")
	if !isRange {
		high = low
	}
	a, err := strconv.ParseUint(low, 10, 16)
	b, err2 := strconv.ParseUint(high, 10, 16)
	if err != nil || err2 != nil || a == 0 || b < a || r.proto == unix.IPPROTO_ICMP {
		return "", fmt.Errorf("ports %q: give PORT or PORT-PORT from 1 to 65535, of tcp or udp", ports)
	}
	r.low, r.high = uint16(a), uint16(b)
	return s, nil
}

// carries says whether the rule is about a protocol and port. Ping over IPv6 counts as icmp.
func (r *neighbourRule) carries(proto uint8, port uint16) bool {
	if proto == unix.IPPROTO_ICMPV6 {
		proto = unix.IPPROTO_ICMP
	}
	switch {
	case r.any:
		return true
	case r.proto != 0 && r.proto != proto:
		return false
	case r.low == 0:
		return true
	}
	return (proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_UDP) && r.low <= port && port <= r.high
}

// Denies says whether packets are refused that no rule is about.
func (p *NeighbourRules) Denies() bool { return p.deny }

// String is the rules, with ; between.
func (p *NeighbourRules) String() string { return p.text }

// Terms are those of a container's that the rules ask for: the only ones that other hosts have to know.
func (p *NeighbourRules) Terms(holds []string) []string {
	var list []string
	for _, h := range holds {
		if slices.ContainsFunc(p.rules, func(r neighbourRule) bool {
			return slices.Contains(r.from, h) || slices.Contains(r.to, h)
		}) && !slices.Contains(list, h) {
			list = append(list, h)
		}
	}
	slices.Sort(list)
	return list
}

// identity is which rules are about an address as sender and as receiver: bit n for rule n.
type identity struct{ from, to uint64 }

// Neighbours decides which containers of a network reach each other. It is NeighbourRules with who has which address.
// The zero value is not ready; NewNeighbours makes one. Its methods may be called at the same time.
type Neighbours struct {
	rules *NeighbourRules
	now   func() time.Time
	who   atomic.Pointer[members]
	other identity // of addresses that nobody is known to have

	changing sync.Mutex // held while who is replaced

	flows flows
}

// members are identities by address, in parts: a change makes one of them anew.
type members [256]map[netip.Addr]identity

// part is the one that an address is in. Those of a network differ in their last bytes.
func part(a netip.Addr) uint8 {
	b := a.As16()
	return b[15] ^ b[14]
}

// NewNeighbours makes one for a network on which nobody is yet.
func NewNeighbours(rules *NeighbourRules) *Neighbours {
	n := &Neighbours{rules: rules, now: time.Now}
	n.other = n.identify(nil)
	n.who.Store(new(members))
	return n
}

// Rules are what it decides by.
func (n *Neighbours) Rules() *NeighbourRules { return n.rules }

func (n *Neighbours) identify(holds []string) (id identity) {
	for i := range n.rules.rules {
		r := &n.rules.rules[i]
		if r.from.matches(holds) {
			id.from |= 1 << i
		}
		if r.to.matches(holds) {
			id.to |= 1 << i
		}
	}
	return id
}

// SetMembers says what holds for who has an address, in the place of what was said before.
func (n *Neighbours) SetMembers(all map[netip.Addr][]string) {
	n.changing.Lock()
	defer n.changing.Unlock()
	who := new(members)
	for a, holds := range all {
		if who[part(a)] == nil {
			who[part(a)] = map[netip.Addr]identity{}
		}
		who[part(a)][a] = n.identify(holds)
	}
	n.who.Store(who)
}

// ChangeMembers says what holds for who has some addresses now, and which addresses nobody has any more. Of others it
// changes nothing.
func (n *Neighbours) ChangeMembers(now map[netip.Addr][]string, gone []netip.Addr) {
	n.changing.Lock()
	defer n.changing.Unlock()
	who := *n.who.Load()
	var mine [256]bool // parts that nobody else has
	of := func(a netip.Addr) map[netip.Addr]identity {
		i := part(a)
		if !mine[i] {
			if mine[i], who[i] = true, maps.Clone(who[i]); who[i] == nil {
				who[i] = map[netip.Addr]identity{}
			}
		}
		return who[i]
	}
	for _, a := range gone {
		delete(of(a), a)
	}
	for a, holds := range now {
		of(a)[a] = n.identify(holds)
	}
	n.who.Store(&who)
}

// identityOf is that of who has an address.
func (n *Neighbours) identityOf(a netip.Addr) identity {
	if id, is := n.who.Load()[part(a)][a]; is {
		return id
	}
	return n.other
}

// Packet is what a decision is about.
type Packet struct {
	Src, Dst netip.AddrPort // of pings the ports are the number that request and answer have in common
	Proto    uint8          // of the IP header
	// Opens says that it begins something: a SYN, a request. Else it may be an answer.
	Opens bool
	// Part says that it is a fragment without ports, or an ICMP error about something else: it passes where anything
	// does between the two.
	Part bool
}

// Decide returns nil where a packet may go on, else a *Refusal. It allocates nothing for packets of flows that go on.
func (n *Neighbours) Decide(p *Packet) error {
	src, dst := n.identityOf(p.Src.Addr()), n.identityOf(p.Dst.Addr())
	if p.Part {
		return n.anything(src, dst)
	}
	err := n.decide(src, dst, p.Proto, p.Dst.Port())
	switch {
	case p.Opens && p.Proto == unix.IPPROTO_TCP:
		return err
	case p.Proto == unix.IPPROTO_TCP: // nothing begins without a SYN
		if err != nil && n.decide(dst, src, p.Proto, p.Src.Port()) == nil {
			return nil
		}
		return err
	case err == nil && (p.Opens || p.Proto == unix.IPPROTO_UDP):
		n.flows.note(flowID{p.Src, p.Dst, p.Proto}, n.now())
		return nil
	case (!p.Opens || p.Proto == unix.IPPROTO_UDP) && n.decide(dst, src, p.Proto, p.Src.Port()) == nil &&
		n.flows.noted(flowID{p.Dst, p.Src, p.Proto}, n.now()):
		return nil
	}
	if err == nil {
		return refusedNeighbour // an answer that nobody asked for
	}
	return err
}

// Opening is Decide for a packet that begins something, of which nothing is remembered.
func (n *Neighbours) Opening(src, dst netip.AddrPort, proto uint8) error {
	return n.decide(n.identityOf(src.Addr()), n.identityOf(dst.Addr()), proto, dst.Port())
}

// decide is the first rule about who sends to whom.
func (n *Neighbours) decide(src, dst identity, proto uint8, port uint16) error {
	about := src.from & dst.to
	for i := range n.rules.rules {
		if about&(1<<i) == 0 {
			continue
		}
		if r := &n.rules.rules[i]; r.carries(proto, port) {
			if r.deny {
				return &r.refusal
			}
			return nil
		}
	}
	if n.rules.deny {
		return refusedNeighbour
	}
	return nil
}

// anything says whether something may pass between two, in either direction.
func (n *Neighbours) anything(a, b identity) error {
	if !n.rules.deny {
		return nil
	}
	about := a.from&b.to | b.from&a.to
	for i := range n.rules.rules {
		if about&(1<<i) != 0 && !n.rules.rules[i].deny {
			return nil
		}
	}
	return refusedNeighbour
}
