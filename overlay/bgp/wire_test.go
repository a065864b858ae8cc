package bgp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	internal = &self{asn: 65000, id: netip.MustParseAddr("192.0.2.1"),
		addrs: addrs{v4: netip.MustParseAddr("192.0.2.1"), v6: netip.MustParseAddr("2001:db8::1")}}
	external = &self{asn: 65000, external: true, id: internal.id, addrs: internal.addrs}

	testRD  = IPv4RD(netip.MustParseAddr("192.0.2.9"), 42)
	testMAC = [6]byte{2, 0x42, 10, 0, 0, 9}
)

// macRoute is a MAC/IP route with an address or none.
func macRoute(ip string) Route {
	e := EVPNRoute{Type: MACIP, RD: testRD, MAC: testMAC}
	if ip != "" {
		e.IP = netip.MustParseAddr(ip)
	}
	return Route{NLRI{Family: EVPN, EVPN: e}, Path{
		NextHop: netip.MustParseAddr("192.0.2.9"), Label: 42, Targets: []Target{AutoTarget(65000, 42)}, VXLAN: true,
	}}
}

func multicastRoute(ip string) Route {
	r := macRoute(ip)
	r.NLRI.EVPN.Type, r.NLRI.EVPN.MAC, r.Path.Ingress = Multicast, [6]byte{}, true
	return r
}

// body is what is behind the header of the only message in b.
func body(t testing.TB, b []byte) []byte {
	t.Helper()
	_, body, err := readMessage(bytes.NewReader(b))
	if err != nil || len(body) != len(b)-headerLen {
		t.Fatalf("%v: % x", err, b)
	}
	return body
}

// TestRoutesAreReadAsTheyWereWritten, announced and withdrawn, by a neighbour in the same AS and in another.
func TestRoutesAreReadAsTheyWereWritten(t *testing.T) {
	moved, stuck := macRoute("10.0.0.9"), macRoute("")
	moved.Path.Sequence, stuck.Path.Sticky = 7, true
	v6 := macRoute("fd00::9")
	v6.Path.NextHop = netip.MustParseAddr("2001:db8::9")
	for _, r := range []Route{macRoute(""), macRoute("10.0.0.9"), v6, moved, stuck, multicastRoute("192.0.2.9")} {
		for _, from := range []*self{internal, external} {
			reader := *from
			reader.asn = 65001 // a writer in AS 65000 is no loop for it
			b, err := appendUpdate(nil, r, from)
			if err != nil {
				t.Fatal(err)
			}
			u, err := parseUpdate(body(t, b), &reader)
			if err != nil || u.fault != "" || len(u.reach) != 1 || u.reach[0].NLRI != r.NLRI ||
				!u.reach[0].Path.equal(r.Path) {
				t.Errorf("%v external %v: %+v, %v", r, from.external, u, err)
			}
			u, err = parseUpdate(body(t, appendWithdrawal(nil, r.NLRI)), &reader)
			if err != nil || len(u.withdrawn) != 1 || u.withdrawn[0] != r.NLRI {
				t.Errorf("withdrawn: %+v, %v", u, err)
			}
		}
	}
}

// TestUnicastRoutesAreWritten as RFC 4271 and RFC 4760 say, byte by byte.
func TestUnicastRoutesAreWritten(t *testing.T) {
	v4 := Route{NLRI: NLRI{Family: IPv4Unicast, Prefix: netip.MustParsePrefix("10.77.3.0/26")}}
	b, err := appendUpdate(nil, v4, internal)
	want := []byte{
		0, 0, 0, 21, // no withdrawn routes; attributes
		0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100, 0x40, 3, 4, 192, 0, 2, 1,
		26, 10, 77, 3, 0,
	}
	if got := body(t, b); err != nil || !bytes.Equal(got, want) {
		t.Errorf("% x, %v, want % x", got, err, want)
	}
	if got := body(t, appendWithdrawal(nil, v4.NLRI)); !bytes.Equal(got, []byte{0, 5, 26, 10, 77, 3, 0, 0, 0}) {
		t.Errorf("withdrawn: % x", got)
	}
	v6 := Route{NLRI: NLRI{Family: IPv6Unicast, Prefix: netip.MustParsePrefix("fd77::/64")},
		Path: Path{NextHop: netip.MustParseAddr("2001:db8::7")}}
	if b, err = appendUpdate(nil, v6, external); err != nil || !bytes.Contains(b, v6.Path.NextHop.AsSlice()) {
		t.Errorf("% x, %v", b, err)
	}
	if _, err := parseUpdate(body(t, b), internal); err != nil {
		t.Error(err)
	}
	alone := *internal
	alone.addrs.v6 = netip.Addr{}
	v6.Path.NextHop = netip.Addr{}
	if _, err := appendUpdate(nil, v6, &alone); !errors.Is(err, errNextHop) {
		t.Errorf("an IPv6 route of a host without such an address: %v", err)
	}
}

func TestEndsOfRIBsAreRead(t *testing.T) {
	for _, f := range families {
		u, err := parseUpdate(body(t, appendEndOfRIB(nil, f)), internal)
		if err != nil || u.ended != f {
			t.Errorf("%v: %+v, %v", f, u, err)
		}
	}
}

// attribute writes one with any flags.
func attribute(flags, kind byte, value ...byte) []byte {
	return append([]byte{flags, kind, byte(len(value))}, value...)
}

// rawUpdate is a body with these attributes and no IPv4 routes.
func rawUpdate(attrs ...[]byte) []byte {
	all := slices.Concat(attrs...)
	return append(binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(all))), all...)
}

// TestErrorsAreHandledAsRFC7606Says: a route counts as withdrawn where it can be told which, the attribute is left out
// where it does not matter, and the session ends where nothing can be told.
func TestErrorsAreHandledAsRFC7606Says(t *testing.T) {
	reach := func(nlri ...byte) []byte {
		return attribute(0x80, attrMPReach, append([]byte{0, 25, 70, 4, 192, 0, 2, 9, 0}, nlri...)...)
	}
	mac := appendEVPN(nil, macRoute("10.0.0.9").NLRI.EVPN, 42)
	good, origin, path := reach(mac...), attribute(0x40, attrOrigin, 0), attribute(0x40, attrASPath)
	preference := attribute(0x40, attrLocalPref, 0, 0, 0, 100)
	ended := slices.Clone(mac)
	ended[2+rdLen+esiLen+tagLen] = 47 // bits of a MAC
	const announced, withdrawn, looped, nothing, reset = "announced", "withdrawn", "looped", "nothing", "reset"
	for _, test := range []struct {
		name string
		body []byte
		want string
	}{
		{"all is well", rawUpdate(good, origin, path, preference), announced},
		{"no origin", rawUpdate(good, path, preference), withdrawn},
		{"no preference in the same AS", rawUpdate(good, origin, path), withdrawn},
		{"an origin that is none", rawUpdate(good, attribute(0x40, attrOrigin, 3), path, preference), withdrawn},
		{"an origin with other flags", rawUpdate(good, attribute(0xc0, attrOrigin, 0), path, preference), withdrawn},
		{"a path with a segment of no AS", rawUpdate(good, origin, attribute(0x40, attrASPath, 2, 0), preference),
			withdrawn},
		{"a path through this AS", rawUpdate(good, origin, attribute(0x40, attrASPath, 2, 1, 0, 0, 0xfd, 0xe8),
			preference), looped},
		{"a path through another AS", rawUpdate(good, origin, attribute(0x40, attrASPath, 2, 1, 0, 0, 0xfd, 0xe9),
			preference), announced},
		{"this speaker's route, reflected", rawUpdate(good, origin, path, preference,
			attribute(0x80, attrOriginatorID, 192, 0, 2, 1)), looped},
		{"that route, without an origin", rawUpdate(good, path, preference,
			attribute(0x80, attrOriginatorID, 192, 0, 2, 1)), withdrawn},
		{"a preference of three bytes", rawUpdate(good, origin, path, attribute(0x40, attrLocalPref, 0, 0, 100)),
			withdrawn},
		{"communities of three bytes", rawUpdate(good, origin, path, preference,
			attribute(0xc0, attrCommunities, 1, 2, 3)), withdrawn},
		{"extended communities of seven bytes", rawUpdate(good, origin, path, preference,
			attribute(0xc0, attrExtended, 1, 2, 3, 4, 5, 6, 7)), withdrawn},
		{"a tunnel of two bytes", rawUpdate(good, origin, path, preference, attribute(0xc0, attrPMSI, 0, 6)),
			withdrawn},
		{"an aggregator of two bytes", rawUpdate(good, origin, path, preference, attribute(0xc0, attrAggregator, 1, 2)),
			announced},
		{"an unknown optional attribute", rawUpdate(good, origin, path, preference, attribute(0xc0, 200, 1)),
			announced},
		{"an attribute twice", rawUpdate(good, origin, origin, path, preference), announced},
		{"an attribute that is cut", rawUpdate(good, origin, path, preference, []byte{0x80, 4}), withdrawn},
		{"an attribute longer than there are bytes", rawUpdate(good, origin, path, preference, []byte{0x80, 4, 4, 0}),
			withdrawn},
		{"a next hop of three bytes", rawUpdate(attribute(0x80, attrMPReach,
			append([]byte{0, 25, 70, 3, 192, 0, 2, 0}, mac...)...), origin, path, preference), withdrawn},
		{"a route of a type that nobody knows", rawUpdate(reach(200, 1, 9), origin, path, preference), nothing},
		{"a MAC of 47 bits", rawUpdate(reach(ended...), origin, path, preference), nothing},
		{"another family", rawUpdate(attribute(0x80, attrMPReach, 0, 1, 128, 0, 0), origin, path, preference), nothing},
		{"an unknown well-known attribute", rawUpdate(good, origin, path, preference, attribute(0x40, 200, 1)), reset},
		{"routes twice", rawUpdate(good, good, origin, path, preference), reset},
		{"a route that is cut", rawUpdate(reach(mac[:20]...), origin, path, preference), reset},
		{"a route that is too short for its type", rawUpdate(reach(2, 3, 1, 2, 3), origin, path, preference), reset},
		{"routes without a next hop", rawUpdate(attribute(0x80, attrMPReach, 0, 25, 70, 4, 192)), reset},
		{"withdrawn routes without a family", rawUpdate(attribute(0x80, attrMPUnreach, 0, 25)), reset},
		{"attributes of more bytes than there are", []byte{0, 0, 0, 9, 1}, reset},
		{"withdrawn routes of more bytes than there are", []byte{0, 9, 1}, reset},
		{"a prefix of 33 bits", append(rawUpdate(origin, path), 33, 1, 2, 3, 4, 5), reset},
		{"nothing", nil, reset},
	} {
		t.Run(test.name, func(t *testing.T) {
			u, err := parseUpdate(test.body, internal)
			got := nothing
			var why *notification
			switch {
			case errors.As(err, &why) && why.code == errUpdate:
				got = reset
			case err != nil:
				t.Fatal(err)
			case len(u.reach) > 0:
				got = announced
			case len(u.withdrawn) > 0 && u.fault != "":
				got = withdrawn
			case len(u.withdrawn) > 0:
				got = looped
			}
			if got != test.want {
				t.Errorf("%s (%+v, %v), want %s", got, u, err, test.want)
			}
		})
	}
}

func TestOpensAreReadAsTheyWereWritten(t *testing.T) {
	for _, asn := range []uint32{65000, 4200000000} {
		o := open{asn: asn, hold: 90 * time.Second, id: internal.id, families: families[:]}
		got, err := parseOpen(body(t, appendOpen(nil, o)))
		if err != nil || got.asn != asn || got.hold != o.hold || got.id != o.id || !got.as4 ||
			!slices.Equal(got.families, o.families) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func TestOpensThatDoNotFitAreRefused(t *testing.T) {
	base := open{asn: 65000, hold: 90 * time.Second, id: netip.MustParseAddr("192.0.2.9"), as4: true}
	for name, test := range map[string]struct {
		change  func(*open)
		subcode uint8
	}{
		"another AS":          {func(o *open) { o.asn++ }, openBadAS},
		"this router id":      {func(o *open) { o.id = internal.id }, openBadID},
		"no router id":        {func(o *open) { o.id = netip.IPv4Unspecified() }, openBadID},
		"two seconds to hold": {func(o *open) { o.hold = 2 * time.Second }, openBadHoldTime},
		"short AS numbers":    {func(o *open) { o.as4 = false }, openUnsupportedCapability},
	} {
		o := base
		test.change(&o)
		var why *notification
		if err := o.accept(65000, internal); !errors.As(err, &why) || why.subcode != test.subcode {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := base.accept(65000, internal); err != nil {
		t.Error(err)
	}
}

func TestTargets(t *testing.T) {
	for text, want := range map[string]Target{
		"65000:42":         {0, 2, 0xfd, 0xe8, 0, 0, 0, 42},
		"192.0.2.1:7":      {1, 2, 192, 0, 2, 1, 0, 7},
		"4200000000:9":     {2, 2, 0xfa, 0x56, 0xea, 0, 0, 9},
		"1:4294967295":     {0, 2, 0, 1, 0xff, 0xff, 0xff, 0xff},
		"":                 {},
		"65000":            {},
		"65000:":           {},
		"4200000000:70000": {},
		"4294967296:1":     {},
		"192.0.2.1:70000":  {},
	} {
		got, err := ParseTarget(text)
		if valid := want != (Target{}); valid != (err == nil) || valid && (got != want || got.String() != text) {
			t.Errorf("%q: % x (%v), %v", text, got, got, err)
		}
	}
	for text, want := range map[string]bool{"65000:42": true, "1:42": true, "1:43": false, "192.0.2.1:42": false,
		"1:268435498": true /* 1<<28 | 42 */, "1:285212714": true /* in domain 1 */} {
		target, err := ParseTarget(text)
		if err != nil || target.IsAutoOf(42) != want {
			t.Errorf("%s: is of VNI 42 %v, %v", text, !want, err)
		}
	}
	if AutoTarget(4200000000, 42).String() != "59904:42" {
		t.Error(AutoTarget(4200000000, 42))
	}
}

func FuzzUpdate(f *testing.F) {
	for _, r := range []Route{macRoute(""), macRoute("10.0.0.9"), macRoute("fd00::9"), multicastRoute("192.0.2.9")} {
		b, err := appendUpdate(nil, r, internal)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[headerLen:])
		f.Add(appendWithdrawal(nil, r.NLRI)[headerLen:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := parseUpdate(b, internal)
		if err != nil || u.fault != "" {
			return
		}
		for _, r := range u.reach { // what was taken can be said again, and is the same
			if len(r.Path.Targets) > 16 {
				continue // a speaker's own routes have fewer
			}
			again, err := appendUpdate(nil, r, internal)
			if err != nil {
				t.Fatal(err)
			}
			v, err := parseUpdate(again[headerLen:], internal)
			if err != nil || len(v.reach) != 1 || v.reach[0].NLRI != r.NLRI {
				t.Fatalf("%v becomes %+v, %v", r, v, err)
			}
		}
	})
}

func FuzzOpen(f *testing.F) {
	o := open{asn: 4200000000, hold: DefaultHold, id: internal.id, families: families[:]}
	f.Add(appendOpen(nil, o)[headerLen:])
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := parseOpen(b)
		if err == nil && (len(o.families) > len(families) || !o.id.Is4()) {
			t.Errorf("%+v", o)
		}
	})
}
