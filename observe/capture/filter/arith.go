package filter

import (
	"strconv"
	"strings"
)

// arithmetic is a number that depends on the frame, as BPF computes it: 32 bits without a sign.
type arithmetic func(*Packet) uint32

// comparisons are the signs between two numbers.
var comparisons = map[string]func(a, b uint32) bool{
	"=":  func(a, b uint32) bool { return a == b },
	"==": func(a, b uint32) bool { return a == b },
	"!=": func(a, b uint32) bool { return a != b },
	"<":  func(a, b uint32) bool { return a < b },
	">":  func(a, b uint32) bool { return a > b },
	"<=": func(a, b uint32) bool { return a <= b },
	">=": func(a, b uint32) bool { return a >= b },
}

// levels are the signs of arithmetic, those that bind least first, as libpcap's grammar has them.
var levels = [][]string{{"|"}, {"^"}, {"&"}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "%"}}

// number reads a number as C writes it.
func number(text string) (uint32, bool) {
	if text == "" || !isDigit(text[0]) || strings.Contains(text, "_") {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 0, 32)
	return uint32(n), err == nil
}

// relation is two numbers with a comparison between them. It holds only for frames that have the protocols whose fields
// it reads.
func (p *parser) relation() (predicate, error) {
	var needs []predicate
	left, err := p.arithmetic(0, &needs)
	if err != nil {
		return nil, err
	}
	compare := comparisons[p.peek().text]
	if compare == nil {
		return nil, p.errorf("a comparison is missing: =, !=, <, >, <= or >=")
	}
	p.next++
	right, err := p.arithmetic(0, &needs)
	if err != nil {
		return nil, err
	}
	return func(k *Packet) bool {
		for _, has := range needs {
			if !has(k) {
				return false
			}
		}
		return compare(left(k), right(k))
	}, nil
}

// arithmetic reads operations of a level and those that bind more. It adds what the frame must be to needs.
func (p *parser) arithmetic(level int, needs *[]predicate) (arithmetic, error) {
	if level == len(levels) {
		return p.operand(needs)
	}
	left, err := p.arithmetic(level+1, needs)
	for err == nil {
		sign, ok := p.accept(levels[level]...)
		if !ok {
			return left, nil
		}
		var right arithmetic
		if right, err = p.arithmetic(level+1, needs); err == nil {
			left = operation(sign, left, right)
		}
	}
	return nil, err
}

func operation(sign string, a, b arithmetic) arithmetic {
	switch sign {
	case "|":
		return func(k *Packet) uint32 { return a(k) | b(k) }
	case "^":
		return func(k *Packet) uint32 { return a(k) ^ b(k) }
	case "&":
		return func(k *Packet) uint32 { return a(k) & b(k) }
	case "<<":
		return func(k *Packet) uint32 { return a(k) << b(k) }
	case ">>":
		return func(k *Packet) uint32 { return a(k) >> b(k) }
	case "+":
		return func(k *Packet) uint32 { return a(k) + b(k) }
	case "-":
		return func(k *Packet) uint32 { return a(k) - b(k) }
	case "*":
		return func(k *Packet) uint32 { return a(k) * b(k) }
	}
	return func(k *Packet) uint32 {
		n, by := a(k), b(k)
		switch {
		case by == 0: // BPF ends there: the frame is not wanted
			k.short = true
			return 0
		case sign == "/":
			return n / by
		}
		return n % by
	}
}

// operand is a number, a negative one, a sum in parentheses, the frame's length or a field.
func (p *parser) operand(needs *[]predicate) (arithmetic, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	t := p.peek()
	if _, ok := p.accept("-"); ok {
		inner, err := p.operand(needs)
		if err != nil {
			return nil, err
		}
		return func(k *Packet) uint32 { return -inner(k) }, nil
	}
	if _, ok := p.accept("("); ok {
		inner, err := p.arithmetic(0, needs)
		if err != nil {
			return nil, err
		}
		if _, ok := p.accept(")"); !ok {
			return nil, p.errorf("a closing parenthesis is missing")
		}
		return inner, nil
	}
	if !t.word || t.escaped {
		return nil, p.errorf("a number was expected, not %q", t.text)
	}
	p.next++
	if n, ok := number(t.text); ok {
		return func(*Packet) uint32 { return n }, nil
	}
	if n, ok := constants[t.text]; ok {
		return func(*Packet) uint32 { return n }, nil
	}
	if t.text == "len" {
		return func(k *Packet) uint32 { return uint32(k.length) }, nil
	}
	return p.field(t.text, needs)
}

// field is proto[offset] or proto[offset:size].
func (p *parser) field(proto string, needs *[]predicate) (arithmetic, error) {
	base, has := baseOf(proto)
	if base == nil {
		p.next--
		return nil, p.errorf("%q has no fields here: give ether, ip, ip6, arp, tcp, udp, icmp, icmp6, igmp or sctp",
			proto)
	}
	if _, ok := p.accept("["); !ok {
		return nil, p.errorf("[ is missing behind %s", proto)
	}
	offset, err := p.arithmetic(0, needs)
	if err != nil {
		return nil, err
	}
	size := 1
	if _, ok := p.accept(":"); ok {
		n, known := number(p.peek().text)
		if !known || n != 1 && n != 2 && n != 4 {
			return nil, p.errorf("a field has 1, 2 or 4 bytes")
		}
		size = int(n)
		p.next++
	}
	if _, ok := p.accept("]"); !ok {
		return nil, p.errorf("] is missing")
	}
	if has != nil {
		*needs = append(*needs, has)
	}
	return func(k *Packet) uint32 { return k.load(base(k)+int(offset(k)), size) }, nil
}

// baseOf is where a protocol's header begins, and which frames have it; nil: no fields of it can be read. Transports
// are those of IPv4, as in libpcap, but for icmp6.
func baseOf(proto string) (base func(*Packet) int, has predicate) {
	network := func(*Packet) int { return atNetwork }
	switch proto {
	case "ether":
		return func(*Packet) int { return 0 }, nil
	case "ip", "ip6", "arp", "rarp":
		return network, ofEtherType(etherTypes[proto])
	case "icmp6":
		return func(*Packet) int { return atIPv6Upper }, ofTransport(transports[proto])
	case "tcp", "udp", "icmp", "igmp", "sctp", "pim", "vrrp", "carp":
		over := overIPv4(transports[proto])
		return (*Packet).upper4, func(k *Packet) bool { return over(k) && !k.later() }
	}
	return nil, nil
}
