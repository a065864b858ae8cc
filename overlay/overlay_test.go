package overlay

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	id64  = strings.Repeat("ab", 32)
	host1 = HostID(strings.Repeat("01", 16))
)

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	host := Host{
		ID: host1, Name: "alpha", Incarnation: 7, Addrs: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:4789")},
		Key: Key{1, 2, 3}, Seen: map[HostID]netip.AddrPort{host1: netip.MustParseAddrPort("[2001:db8::1]:9")},
		MTU: 1500,
	}
	network := Network{
		ID: id64, Name: "ov_net1", Created: time.Unix(1, 0).UTC(), VNI: 4096, Sealed: true, IPv4: true, Creator: host1,
		Subnets: []Subnet{{Subnet: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.1")}},
		Labels:  map[string]string{"a": "b"},
	}
	endpoint := Endpoint{
		Network: id64, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}, MAC: MAC{2, 0x42, 10, 0, 0, 2},
		Host:       host1,
		EndpointID: id64, Container: id64, Name: "t1", Names: []string{"web"}, Running: true,
	}
	roundTrip(t, host)
	roundTrip(t, network)
	roundTrip(t, endpoint)
	roundTrip(t, Block{Network: id64, Prefix: netip.MustParsePrefix("10.0.0.16/28"), Host: host1})
	roundTrip(t, Name{Network: id64})
}

func roundTrip[R record](t *testing.T, r R) {
	t.Helper()
	b, err := Encode(r)
	if err != nil {
		t.Fatalf("%T: %v", r, err)
	}
	back, err := Decode[R](b)
	if err != nil || !reflect.DeepEqual(back, r) {
		t.Fatalf("%s came back as %+v, %v", b, back, err)
	}
}

func TestRecordsAreReadStrictly(t *testing.T) {
	for what, text := range map[string]string{
		"no JSON":             `{`,
		"unknown field":       `{"network":"` + id64 + `","owner":1}`,
		"something after":     `{"network":"` + id64 + `"}{}`,
		"short id":            `{"network":"abcd"}`,
		"upper-case id":       `{"network":"` + strings.ToUpper(id64) + `"}`,
		"larger than allowed": `{"network":"` + strings.Repeat(" ", MaxRecord) + `"}`,
	} {
		if r, err := Decode[Name]([]byte(text)); err == nil {
			t.Errorf("%s: read as %+v", what, r)
		}
	}
	good := Host{ID: host1, Name: "a"}
	for what, change := range map[string]func(*Host){
		"control character": func(h *Host) { h.Name = "a\x1b[2J" },
		"no address":        func(h *Host) { h.Addrs = []netip.AddrPort{{}} },
		"port 0":            func(h *Host) { h.Addrs = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")} },
		"multicast":         func(h *Host) { h.Addrs = []netip.AddrPort{netip.MustParseAddrPort("224.0.0.1:9")} },
		"long name":         func(h *Host) { h.Name = strings.Repeat("x", 256) },
		"negative MTU":      func(h *Host) { h.MTU = -1 },
	} {
		h := good
		change(&h)
		if _, err := Encode(h); err == nil {
			t.Errorf("%s was written", what)
		}
	}
	if _, err := Encode(good); err != nil {
		t.Error(err)
	}
}

func TestKeysAreReadAsTheyAreWritten(t *testing.T) {
	for _, test := range []struct {
		key  string
		want ParsedKey
	}{
		{AliveKey(host1), ParsedKey{Kind: KindAlive, Host: host1}},
		{HostKey(host1), ParsedKey{Kind: KindHost, Host: host1}},
		{NetworkKey(id64), ParsedKey{Kind: KindNetwork, Network: id64}},
		{NameKey("a/b c"), ParsedKey{Kind: KindName, Name: "a/b c"}},
		{PoolKey(netip.MustParsePrefix("10.0.0.0/24")),
			ParsedKey{Kind: KindPool, Prefix: netip.MustParsePrefix("10.0.0.0/24")}},
		{PoolKey(netip.MustParsePrefix("fd00::/64")),
			ParsedKey{Kind: KindPool, Prefix: netip.MustParsePrefix("fd00::/64")}},
		{VNIKey(4096), ParsedKey{Kind: KindVNI, VNI: 4096}},
		{BlockKey(id64, netip.MustParsePrefix("10.0.0.16/28")),
			ParsedKey{Kind: KindBlock, Network: id64, Prefix: netip.MustParsePrefix("10.0.0.16/28")}},
		{EndpointKey(id64, netip.MustParseAddr("fd00::2")),
			ParsedKey{Kind: KindEndpoint, Network: id64, Addr: netip.MustParseAddr("fd00::2")}},
	} {
		got, err := ParseKey(test.key)
		if err != nil || got != test.want {
			t.Errorf("%s is read as %+v, %v", test.key, got, err)
		}
	}
	for _, key := range []string{
		"", "/", "hosts/", "hosts/xyz", "nets/", "nets/abc", "vnis/007", "vnis/x", "pools/10.0.0.0",
		"eps/" + id64 + "/10.0.0.02",
		"eps/abc/10.0.0.2", "other/x", "netnames/%zz", "netnames/a b", "alive/" + id64, strings.Repeat("x", 5000),
	} {
		if got, err := ParseKey(key); err == nil {
			t.Errorf("%.80q is read as %+v", key, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"network":"` + id64 + `"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := Decode[Endpoint](b); err == nil {
			if _, err := Encode(r); err != nil && len(b) < MaxRecord/2 {
				t.Errorf("%s was read and cannot be written: %v", b, err)
			}
		}
		_, _ = Decode[Host](b)
		_, _ = Decode[Network](b)
	})
}
