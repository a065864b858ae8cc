package routers

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/ndp"

	vswitch "github.com/usernet/usernet/switch"
)

var (
	router1 = netip.MustParseAddr("fe80::1")
	router2 = netip.MustParseAddr("fe80::2")
	me      = net.HardwareAddr{2, 0, 0x5e, 0x10, 0, 9}
)

// inFrame is an advertisement on the wire.
func inFrame(t testing.TB, from netip.Addr, ra *ndp.RouterAdvertisement) *vswitch.Frame {
	t.Helper()
	to := netip.MustParseAddr("ff02::1")
	body, err := ndp.MarshalMessageChecksum(ra, from, to)
	if err != nil {
		t.Fatal(err)
	}
	f := new(vswitch.Frame)
	f.Ethernet()[12], f.Ethernet()[13] = 0x86, 0xdd
	f.Payload = [][]byte{Packet(from, to, body)}
	return f
}

func prefix(p string, valid, preferred time.Duration) *ndp.PrefixInformation {
	x := netip.MustParsePrefix(p)
	return &ndp.PrefixInformation{Prefix: x.Addr(), PrefixLength: uint8(x.Bits()), OnLink: true,
		AutonomousAddressConfiguration: true, ValidLifetime: valid, PreferredLifetime: preferred}
}

// announce has a table take an advertisement.
func announce(t testing.TB, table *Table, from netip.Addr, ra *ndp.RouterAdvertisement) {
	t.Helper()
	a := Parse(inFrame(t, from, ra))
	if a == nil {
		t.Fatalf("%+v of %s is not understood", ra, from)
	}
	table.Take(a)
}

func TestWhatRoutersAnnounce(t *testing.T) {
	var table Table
	_, changed := table.View(time.Now())
	announce(t, &table, router1, &ndp.RouterAdvertisement{RouterLifetime: time.Hour, Options: []ndp.Option{
		prefix("2001:db8:1::/64", 2*time.Hour, time.Hour),
		&ndp.RecursiveDNSServer{Lifetime: time.Minute, Servers: []netip.Addr{netip.MustParseAddr("2001:db8::53")}},
	}})
	<-changed
	announce(t, &table, router2, &ndp.RouterAdvertisement{RouterLifetime: time.Hour, ManagedConfiguration: true,
		RouterSelectionPreference: ndp.High, Options: []ndp.Option{
			prefix("2001:db8:2::/64", 4*time.Hour, 0), prefix("2001:db8:3::/60", time.Hour, time.Hour)}})
	v, _ := table.View(time.Now())
	if v.Router != router2 || !v.Managed || len(v.Prefixes) != 3 || len(v.DNS) != 1 {
		t.Errorf("%+v", v)
	}
	want := []netip.Addr{netip.MustParseAddr("2001:db8:1::5eff:fe10:9"), netip.MustParseAddr("2001:db8:2::5eff:fe10:9")}
	if got := v.Addresses(me); !slices.Equal(got, want) {
		t.Errorf("addresses %v, wanted %v", got, want)
	}
	if until := time.Until(v.Until); until > time.Minute || until < time.Minute-10*time.Second {
		t.Errorf("it holds for %v", until)
	}
	// A router that goes says so; the other one is left.
	announce(t, &table, router2, &ndp.RouterAdvertisement{})
	if v, _ = table.View(time.Now()); v.Router != router1 || v.Managed {
		t.Errorf("after the router has gone: %+v", v)
	}
	later, _ := table.View(time.Now().Add(61 * time.Minute))
	if later.Router.IsValid() || len(later.DNS) != 0 || !later.Equal(&later) || later.Equal(&v) {
		t.Errorf("an hour later: %+v", later)
	}
}

// TestAPrefixStaysForTwoHours: nobody has signed that it ends at once.
func TestAPrefixStaysForTwoHours(t *testing.T) {
	for _, test := range []struct{ first, then, left time.Duration }{
		{10 * time.Hour, 0, 2 * time.Hour},
		{time.Hour, 0, time.Hour},
		{time.Hour, 3 * time.Hour, 3 * time.Hour},
		{10 * time.Hour, 5 * time.Hour, 5 * time.Hour},
	} {
		var table Table
		announce(t, &table, router1, &ndp.RouterAdvertisement{Options: []ndp.Option{
			prefix("2001:db8:1::/64", test.first, 0)}})
		announce(t, &table, router1, &ndp.RouterAdvertisement{Options: []ndp.Option{
			prefix("2001:db8:1::/64", test.then, 0)}})
		v, _ := table.View(time.Now())
		if len(v.Prefixes) != 1 {
			t.Fatalf("%v: %+v", test, v)
		}
		if left := time.Until(v.Prefixes[0].Valid); left > test.left || left < test.left-time.Minute {
			t.Errorf("%v: %v are left", test, left)
		}
	}
}

// TestAFloodOfRoutersIsBounded: what there is too much of is passed over, and what was known stays.
func TestAFloodOfRoutersIsBounded(t *testing.T) {
	var table Table
	announce(t, &table, router1, &ndp.RouterAdvertisement{RouterLifetime: time.Hour,
		Options: []ndp.Option{prefix("2001:db8:1::/64", time.Hour, time.Hour)}})
	for i := range 1000 {
		var options []ndp.Option
		for j := range 20 {
			p := prefix("2001:db8:2::/64", time.Hour, time.Hour)
			b := p.Prefix.As16()
			b[5], b[6], b[7] = byte(j), byte(i>>8), byte(i)
			p.Prefix = netip.AddrFrom16(b)
			options = append(options, p)
		}
		a := router2.As16()
		a[14], a[15] = byte(i>>8), byte(i)
		announce(t, &table, netip.AddrFrom16(a), &ndp.RouterAdvertisement{RouterLifetime: time.Hour, Options: options})
	}
	v, _ := table.View(time.Now())
	if len(v.Prefixes) != maxPrefixes || len(table.routers) != maxRouters || v.Router != router1 {
		t.Errorf("%d prefixes, %d routers: %+v", len(v.Prefixes), len(table.routers), v)
	}
}

// TestWhatNoAdvertisementIs are RFC 4861's checks.
func TestWhatNoAdvertisementIs(t *testing.T) {
	ra := &ndp.RouterAdvertisement{RouterLifetime: time.Hour}
	for name, change := range map[string]func(p []byte){
		"forwarded":           func(p []byte) { p[7] = 254 },
		"of a global address": func(p []byte) { p[8], p[9] = 0x20, 1 },
		"a wrong checksum":    func(p []byte) { p[42]++ },
		"a code":              func(p []byte) { p[41] = 1 },
		"longer than it is":   func(p []byte) { p[5]++ },
		"of another type":     func(p []byte) { p[40] = 133 },
	} {
		f := inFrame(t, router1, ra)
		change(f.Payload[0])
		if Parse(f) != nil {
			t.Errorf("%s: taken for one", name)
		}
	}
	var table Table
	announce(t, &table, router1, &ndp.RouterAdvertisement{Options: []ndp.Option{
		prefix("fe80::/64", time.Hour, time.Hour), prefix("ff02::/16", time.Hour, time.Hour),
		prefix("::/0", time.Hour, time.Hour), prefix("2001:db8:9::/64", time.Hour, 2*time.Hour),
	}})
	if v, _ := table.View(time.Now()); len(v.Prefixes) != 0 {
		t.Errorf("%+v", v)
	}
}

// FuzzParse: no frame makes the table panic, or has it grow.
func FuzzParse(f *testing.F) {
	f.Add(inFrame(f, router1, &ndp.RouterAdvertisement{RouterLifetime: time.Hour,
		Options: []ndp.Option{prefix("2001:db8:1::/64", time.Hour, time.Hour)}}).Payload[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		var fr vswitch.Frame
		fr.Ethernet()[12], fr.Ethernet()[13] = 0x86, 0xdd
		fr.Payload = [][]byte{b}
		fr.PutVirtio(vswitch.Virtio{DataValid: true})
		var table Table
		if a := Parse(&fr); a != nil {
			table.Take(a)
		}
		v, _ := table.View(time.Now())
		if len(v.Prefixes) > maxPrefixes || len(v.DNS) > maxRouters*maxServers {
			t.Errorf("%+v", v)
		}
	})
}
