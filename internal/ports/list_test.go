package ports

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// single is one published port, the simple way to look at ranges.
type single struct {
	host           netip.Addr
	hostPort, port uint16
	proto          Protocol
}

// singles takes bindings apart.
func singles(list []Binding) (all []single) {
	for _, b := range list {
		for i := uint16(0); i <= max(b.Port, b.End)-b.Port; i++ {
			s := single{b.HostIP, b.HostPort, b.Port + i, b.Proto}
			if b.HostPort != 0 && b.End > b.Port {
				s.hostPort += i
			}
			all = append(all, s)
		}
	}
	return all
}

// TestSubtractIsDifference compares it with the difference of sets of single ports, for random bindings.
func TestSubtractIsDifference(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	hosts := []netip.Addr{{}, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}
	draw := func(n int) (list []Binding) {
		for range r.IntN(n) {
			b := Binding{
				HostIP: hosts[r.IntN(3)],
				Port:   uint16(80 + r.IntN(6)),
				Proto:  []Protocol{"tcp", "udp"}[r.IntN(2)],
			}
			b.End = b.Port + uint16(r.IntN(4))
			if r.IntN(3) > 0 {
				b.HostPort = 8000 + b.Port
				b.HostEnd = b.HostPort + b.End - b.Port
			}
			list = append(list, b)
		}
		return list
	}
	for round := range 3000 {
		have, drop := draw(4), draw(3)
		var want []single
		for _, s := range singles(have) {
			gone := slices.ContainsFunc(singles(drop), func(x single) bool {
				return x.proto == s.proto && x.port == s.port && (!x.host.IsValid() || x.host == s.host)
			})
			if !gone {
				want = append(want, s)
			}
		}
		if got := singles(subtract(have, drop)); !slices.Equal(got, want) {
			t.Fatalf("round %d: %v less %v\nis   %v\nwant %v", round, have, drop, got, want)
		}
	}
}

func TestSubtractKeepsWhatIsWhole(t *testing.T) {
	have := []Binding{{HostPort: 8000, HostEnd: 8010, Port: 80, End: 90, Proto: "tcp"}}
	if got := subtract(have, []Binding{{Port: 80, End: 90, Proto: "udp"}}); !slices.Equal(got, have) {
		t.Errorf("%v", got)
	}
	if got := subtract(have, have); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// TestPortsOfAllAddressesGoOneByOne: who sees where ports are bound names an address to remove one.
func TestPortsOfAllAddressesGoOneByOne(t *testing.T) {
	have := []Binding{
		{HostPort: 8080, HostEnd: 8080, Port: 80, End: 80, Proto: "tcp"},
		{HostPort: 8081, HostEnd: 8081, Port: 81, End: 81, Proto: "tcp"},
	}
	v4, v6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	var bound List
	for _, h := range have {
		for _, a := range []netip.Addr{v4, v6} {
			bound.Add(Bound{Port: h.Port, Proto: h.Proto, Host: netip.AddrPortFrom(a, h.HostPort)}.Binding())
		}
	}
	at := func(a netip.Addr) Binding {
		b := have[0]
		b.HostIP = a
		return b
	}
	for name, test := range map[string]struct{ drop, want []Binding }{
		"one":     {[]Binding{at(v4)}, []Binding{at(v6), have[1]}},
		"both":    {[]Binding{at(v4), at(v6)}, have[1:]},
		"all":     {[]Binding{have[0]}, have[1:]},
		"another": {[]Binding{at(netip.MustParseAddr("192.0.2.1"))}, have},
	} {
		var got []Binding
		for _, h := range have {
			got = append(got, h.Without(test.drop, func(b Binding) []Binding {
				_, list := bound.Named(b)
				return list
			})...)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// TestListFindsWhatAWalkFinds adds and removes random bindings, and looks for them by the index and by a walk.
func TestListFindsWhatAWalkFinds(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 3))
		hosts := []netip.Addr{{}, netip.MustParseAddr("127.0.0.1"), netip.IPv6Unspecified()}
		draw := func() Binding {
			b := Binding{HostIP: hosts[r.IntN(3)], Port: uint16(80 + r.IntN(5)), Proto: []Protocol{TCP, UDP}[r.IntN(2)]}
			b.End = b.Port + uint16(r.IntN(3))
			if r.IntN(3) > 0 {
				b.HostPort = uint16(90 + r.IntN(5))
				b.HostEnd = b.HostPort + b.End - b.Port
			}
			if b.End == b.Port && r.IntN(3) == 0 {
				b.HostEnd = b.HostPort + uint16(r.IntN(4))
			}
			return b
		}
		var l List
		have := map[uint64]Binding{}
		for range 300 {
			switch key := uint64(r.IntN(40)); {
			case r.IntN(3) == 0:
				l.Delete(key)
				delete(have, key)
			case r.IntN(3) == 0:
				b := draw()
				have[l.Next()] = b
				l.Add(b)
			default:
				b := draw()
				l.Put(key, b)
				have[key] = b
			}
			var want []Binding
			for _, key := range l.Keys() {
				want = append(want, have[key])
			}
			if got := l.All(); !slices.Equal(got, want) || len(got) != len(have) || l.Len() != len(have) {
				t.Fatalf("seed %d: %v, want %v", seed, got, want)
			}
			p := draw()
			var touched []uint64
			for _, key := range l.Keys() {
				if touches(have[key], p) {
					touched = append(touched, key)
				}
			}
			if got := l.Touched(p); !slices.Equal(got, touched) {
				t.Fatalf("seed %d: %+v touches %v, want %v of %+v", seed, p, got, touched, have)
			}
		}
		for _, key := range l.Keys() {
			l.Delete(key)
		}
		if l.Len() != 0 || l.places.Len() != 0 {
			t.Fatalf("seed %d: %d bindings and %d places are left", seed, l.Len(), l.places.Len())
		}
	}
}

// touches is what Touched says, port by port.
func touches(b, p Binding) bool {
	for i := range b.Count() {
		host := b.HostPort
		if b.Count() > 1 && host != 0 {
			host += uint16(i)
		}
		known := b.HostPort != 0 && !(b.Count() == 1 && b.HostCount() > 1)
		if p.Covers(Port{b.Port + uint16(i), b.Proto}) &&
			(p.HostPort == 0 || !known || p.HostPort <= host && host <= max(p.HostPort, p.HostEnd)) {
			return true
		}
	}
	return false
}

// TestTouchedCoversWhatWithoutChanges: where p names something that is bound of a binding, and Without would change the
// binding, Touched finds it.
func TestTouchedCoversWhatWithoutChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	hosts := []netip.Addr{{}, netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	changed := 0
	for range 5000 {
		b := Binding{HostIP: hosts[r.IntN(3)], Port: uint16(80 + r.IntN(3)), Proto: TCP}
		b.End = b.Port + uint16(r.IntN(3))
		if r.IntN(2) == 0 {
			b.HostPort = uint16(90 + r.IntN(3))
			b.HostEnd = b.HostPort + b.End - b.Port
		}
		if b.End == b.Port && b.HostPort != 0 && r.IntN(2) == 0 {
			b.HostEnd += 2
		}
		var bound List
		for i := range b.Count() {
			for _, a := range hosts[1:] {
				host := b.hostOf(i)
				if host == 0 {
					host = cmp.Or(b.HostPort, 90) + uint16(r.IntN(max(b.HostCount(), 3)))
				}
				if b.HostIP.IsValid() {
					a = b.HostIP
				}
				bound.Add(Bound{Host: netip.AddrPortFrom(a, host), Port: b.Port + uint16(i), Proto: TCP}.Binding())
			}
		}
		p := Binding{HostIP: hosts[r.IntN(3)], Port: uint16(80 + r.IntN(5)), Proto: TCP}
		p.End = p.Port + uint16(r.IntN(2))
		if r.IntN(2) == 0 {
			p.HostPort = uint16(90 + r.IntN(6))
			p.HostEnd = p.HostPort
		}
		left := b.Without([]Binding{p}, func(b Binding) []Binding { _, list := bound.Named(b); return list })
		if keys, _ := bound.Named(p); len(keys) == 0 || len(left) == 1 && left[0] == b {
			continue // the first is refused before
		}
		changed++
		var l List
		l.Add(b)
		if len(l.Touched(p)) == 0 {
			t.Fatalf("%+v less %+v is %+v, and is not touched", b, p, left)
		}
	}
	if changed == 0 {
		t.Error("nothing was changed")
	}
}
