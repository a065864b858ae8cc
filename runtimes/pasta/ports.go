package pasta

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Mode is how the ports of one direction and protocol are chosen.
type Mode uint8

// The modes of --tcp-ports, --udp-ports, --tcp-ns and --udp-ns.
const (
	ModeUnset Mode = iota // not given
	ModeNone              // no port
	ModeAuto              // those that something listens at on the other side, as they come and go
	ModeList              // Ranges
)

// Range forwards the ports First to Last to To and those behind it.
type Range struct {
	Addr        netip.Addr // where to listen; invalid: at all addresses
	Interface   string     // where to listen; "": at all interfaces
	First, Last uint16
	To          uint16
	// Weak ranges were not named one by one: a port that cannot be bound is left out without an error.
	Weak bool
}

// Ports is what one of the port options says, over all times that it was given.
type Ports struct {
	Mode   Mode
	Ranges []Range
}

// portSet holds one bit for each port.
type portSet [65536 / 64]uint64

func (s *portSet) add(first, last uint16) {
	for p := uint32(first); p <= uint32(last); p++ {
		s[p/64] |= 1 << (p % 64)
	}
}

func (s *portSet) remove(first, last uint16) {
	for p := uint32(first); p <= uint32(last); p++ {
		s[p/64] &^= 1 << (p % 64)
	}
}

// union adds another set's ports.
func (s *portSet) union(other *portSet) {
	for i, w := range other {
		s[i] |= w
	}
}

// subtract removes another set's ports.
func (s *portSet) subtract(other *portSet) {
	for i, w := range other {
		s[i] &^= w
	}
}

func (s *portSet) has(p uint16) bool { return s[p/64]&(1<<(p%64)) != 0 }

// Set adds one value of the option: none, auto, or [ADDR][%INTERFACE]/LIST.
func (p *Ports) Set(spec string) error {
	mode := ModeList
	switch spec {
	case "none":
		mode = ModeNone
	case "all":
		return errors.New("all is passt's: give the ports, or those to leave out, as in ~22,~5432")
	case "auto":
		mode = ModeAuto
	}
	if mode != ModeList || p.Mode != ModeUnset && p.Mode != ModeList {
		if p.Mode != ModeUnset && p.Mode != mode {
			return fmt.Errorf("port option %q contradicts an earlier one: none and auto stand alone", spec)
		}
		p.Mode = mode
		return nil
	}
	ranges, err := parseRanges(spec)
	if err != nil {
		return err
	}
	p.Mode = ModeList
	p.Ranges = append(p.Ranges, ranges...)
	return nil
}

// parseRanges reads [ADDR][%INTERFACE]/LIST.
func parseRanges(spec string) ([]Range, error) {
	var template Range
	list := spec
	if where, rest, ok := strings.Cut(spec, "/"); ok {
		list = rest
		addr, ifc, hasIfc := strings.Cut(where, "%")
		if hasIfc && (ifc == "" || len(ifc) > 15) { // IFNAMSIZ in <linux/if.h>, without the zero byte
			return nil, fmt.Errorf("invalid port specifier %q: %q is no interface's name", spec, ifc)
		}
		template.Interface = ifc
		if addr != "" {
			a, err := netip.ParseAddr(strings.Trim(addr, "[]"))
			if err != nil {
				return nil, fmt.Errorf("invalid port specifier %q: %q is no address", spec, addr)
			}
			template.Addr = a
		} else if !hasIfc {
			return nil, fmt.Errorf("invalid port specifier %q: nothing before the slash", spec)
		}
	}
	var excluded portSet
	type pair struct {
		from, to string
		mapped   bool
	}
	var named []pair
	for part := range strings.SplitSeq(list, ",") {
		if out, ok := strings.CutPrefix(part, "~"); ok {
			first, last, err := parseRange(out)
			if err != nil {
				return nil, fmt.Errorf("invalid port specifier %q: %w", spec, err)
			}
			excluded.add(first, last)
			continue
		}
		from, to, mapped := strings.Cut(part, ":")
		named = append(named, pair{from, to, mapped})
	}
	if len(named) == 0 { // exclusions only: all others
		template.Weak = true
		low, _ := ephemeral()
		return some(spec, subtract(template, 1, low-1, 1, &excluded))
	}
	var out []Range
	for _, n := range named {
		first, last, err := parseRange(n.from)
		to := first
		if err == nil && n.mapped {
			var toLast uint16
			if to, toLast, err = parseRange(n.to); err == nil && toLast-to != last-first {
				err = fmt.Errorf("the ranges %s and %s differ in length", n.from, n.to)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("invalid port specifier %q: %w", spec, err)
		}
		out = append(out, subtract(template, first, last, to, &excluded)...)
	}
	slices.SortFunc(out, func(a, b Range) int { return int(a.First) - int(b.First) })
	for i := 1; i < len(out); i++ {
		if out[i].First <= out[i-1].Last {
			return nil, fmt.Errorf("invalid port specifier %q: port %d is named twice", spec, out[i].First)
		}
	}
	return some(spec, out)
}

// some are the ranges of a specifier, which leaves some ports.
func some(spec string, ranges []Range) ([]Range, error) {
	if len(ranges) == 0 {
		return nil, fmt.Errorf("invalid port specifier %q: no port is left", spec)
	}
	return ranges, nil
}

// subtract is first to last without the excluded ports, in as few ranges as possible.
func subtract(template Range, first, last, to uint16, excluded *portSet) []Range {
	var out []Range
	open := false
	for p := uint32(first); p <= uint32(last); p++ {
		if excluded.has(uint16(p)) {
			open = false
			continue
		}
		if !open {
			r := template
			r.First, r.To = uint16(p), to+uint16(p)-first
			out = append(out, r)
			open = true
		}
		out[len(out)-1].Last = uint16(p)
	}
	return out
}

// parseRange reads PORT or PORT-PORT.
func parseRange(s string) (first, last uint16, err error) {
	a, b, ranged := strings.Cut(s, "-")
	n, err := strconv.ParseUint(a, 10, 16)
	if err != nil || n == 0 {
		return 0, 0, fmt.Errorf("%q is no port", a)
	}
	if !ranged {
		return uint16(n), uint16(n), nil
	}
	m, err := strconv.ParseUint(b, 10, 16)
	if err != nil || m == 0 {
		return 0, 0, fmt.Errorf("%q is no port", b)
	}
	if m < n {
		return 0, 0, fmt.Errorf("the range %s ends before it begins", s)
	}
	return uint16(n), uint16(m), nil
}
