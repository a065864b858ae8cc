package flannel

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/kv"
)

func TestConfigurations(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	for _, test := range []struct {
		text string
		want Config
		err  string
	}{
		{text: `{"Network":"10.5.0.0/16"}`,
			want: Config{Network: p("10.5.0.0/16"), SubnetLen: 24, Min: a("10.5.1.0"), Max: a("10.5.255.0"),
				Backend: "udp", Port: 8285}},
		{text: `{"Network":"10.5.0.0/24","Backend":{"Type":"vxlan"}}`,
			want: Config{Network: p("10.5.0.0/24"), SubnetLen: 26, Min: a("10.5.0.64"), Max: a("10.5.0.192"),
				Backend: "vxlan", VNI: 1, Port: 8472}},
		{text: `{"Network":"10.5.1.2/16","SubnetLen":20,"SubnetMin":"10.5.32.0","SubnetMax":"10.5.64.0",` +
			`"EnableIPv4":true,"Backend":{"Type":"vxlan","VNI":7,"Port":4789,"MTU":1400,"DirectRouting":true}}`,
			want: Config{Network: p("10.5.0.0/16"), SubnetLen: 20, Min: a("10.5.32.0"), Max: a("10.5.64.0"),
				Backend: "vxlan", VNI: 7, Port: 4789, MTU: 1400, DirectRoute: true}},
		{text: `{"Network":"0.0.0.0/0","SubnetLen":8}`,
			want: Config{Network: p("0.0.0.0/0"), SubnetLen: 8, Min: a("1.0.0.0"), Max: a("255.0.0.0"), Backend: "udp",
				Port: 8285}},
		{text: ``, err: "JSON"},
		{text: `{}`, err: "Network"},
		{text: `{"Network":"fd00::/64"}`, err: "Network"},
		{text: `{"Network":"10.5.0.0/16","EnableIPv6":true}`, err: "IPv6"},
		{text: `{"Network":"10.5.0.0/16","EnableIPv4":false}`, err: "IPv6"},
		{text: `{"Network":"10.5.0.0/29"}`, err: "SubnetLen"},
		{text: `{"Network":"10.5.0.0/16","SubnetLen":-1}`, err: "SubnetLen"},
		{text: `{"Network":"10.5.0.0/16","SubnetLen":17}`, err: "SubnetLen"},
		{text: `{"Network":"10.5.0.0/16","SubnetLen":31}`, err: "SubnetLen"},
		{text: `{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0"}`, err: "SubnetMin"},
		{text: `{"Network":"10.5.0.0/16","SubnetMin":"10.5.0.3"}`, err: "SubnetMin"},
		{text: `{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.8.0"}`, err: "SubnetMax"},
		{text: `{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`, err: "host-gw takes privileges"},
		{text: `{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard"}}`, err: "wireguard takes privileges"},
		{text: `{"Network":"10.5.0.0/16","Backend":{"Type":"alloc"}}`, err: "\"alloc\" is unknown here"},
		{text: `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","GBP":true}}`, err: "GBP"},
		{text: `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":16777216}}`, err: "VNI"},
		{text: `{"Network":"10.5.0.0/16","Backend":{"MTU":10}}`, err: "MTU"},
		{text: strings.Repeat(" ", maxValue+1), err: "bytes"},
	} {
		got, err := parseConfig([]byte(test.text))
		switch {
		case test.err == "" && (err != nil || got != test.want):
			t.Errorf("%s: %+v, %v, want %+v", test.text, got, err, test.want)
		case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
			t.Errorf("%.80s: %v, want an error with %q", test.text, err, test.err)
		}
	}
}

func TestSubnetsOfANetwork(t *testing.T) {
	c, err := parseConfig([]byte(`{"Network":"10.5.0.0/24","SubnetLen":28,"SubnetMax":"10.5.0.48"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"10.5.0.16/28", "10.5.0.32/28", "10.5.0.48/28"}
	for i := range c.subnets() {
		if got := c.subnet(i); got.String() != want[i] || !c.fits(got) {
			t.Errorf("subnet %d is %v, %v", i, got, c.fits(got))
		}
	}
	if c.subnets() != uint32(len(want)) {
		t.Errorf("%d subnets", c.subnets())
	}
	for _, s := range []string{"10.5.0.0/28", "10.5.0.64/28", "10.5.0.16/29", "10.5.0.17/28", "10.6.0.16/28"} {
		if c.fits(netip.MustParsePrefix(s)) {
			t.Errorf("%s fits", s)
		}
	}
	if got := Last(netip.MustParsePrefix("10.5.0.16/28")).String(); got != "10.5.0.31" {
		t.Errorf("the last address is %s", got)
	}
}

// TestLeases are read as flanneld v0.26.7 wrote them, and written as it reads them.
func TestLeases(t *testing.T) {
	mac := overlay.MAC{0x26, 0x91, 0xff, 0x21, 0x2d, 0x41}
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	vxlan := lease{subnet: p("10.5.21.0/24"), public: a("10.99.0.1"), backend: "vxlan", vni: 1, mac: mac}
	for _, test := range []struct {
		key, value string
		want       lease
		err        string
	}{
		{key: "subnets/10.5.21.0-24", value: `{"PublicIP":"10.99.0.1","PublicIPv6":null,"BackendType":"vxlan",` +
			`"BackendData":{"VNI":1,"VtepMAC":"26:91:ff:21:2d:41"}}`, want: vxlan},
		{key: "subnets/10.5.21.0-24&fc00::-64", value: `{"PublicIP":"10.99.0.1","PublicIPv6":"fd00::1",` +
			`"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"26:91:ff:21:2d:41"},"BackendV6Data":{}}`, want: vxlan},
		{key: "subnets/10.5.21.0-24", value: `{"PublicIP":"10.99.0.1","PublicIPv6":null}`,
			want: lease{subnet: vxlan.subnet, public: vxlan.public, backend: "udp"}},
		{key: "subnets/10.5.21.0-24", value: `{"PublicIP":"10.99.0.1","BackendType":"host-gw","BackendData":null}`,
			want: lease{subnet: vxlan.subnet, public: vxlan.public, backend: "host-gw"}},
		{key: "subnets/10.5.21.1-24", value: `{"PublicIP":"10.99.0.1"}`, err: "no subnet"},
		{key: "subnets/fc00::-64", value: `{"PublicIP":"10.99.0.1"}`, err: "no subnet"},
		{key: "subnets/", value: `{"PublicIP":"10.99.0.1"}`, err: "no subnet"},
		{key: "other/10.5.21.0-24", value: `{"PublicIP":"10.99.0.1"}`, err: "no subnet"},
		{key: "subnets/10.5.21.0-24", value: `{"PublicIP":"fd00::1"}`, err: "PublicIP"},
		{key: "subnets/10.5.21.0-24", value: `{"PublicIP":"127.0.0.1"}`, err: "PublicIP"},
		{key: "subnets/10.5.21.0-24", value: `{"PublicIP":"224.0.0.1"}`, err: "PublicIP"},
		{key: "subnets/10.5.21.0-24", value: `{"PublicIP":"255.255.255.255"}`, err: "PublicIP"},
		{key: "subnets/10.5.21.0-24", value: `[]`, err: "json"},
		{key: "subnets/10.5.21.0-24", value: `{"PublicIP":"10.99.0.1","BackendType":"vxlan"}`, err: "BackendData"},
		{key: "subnets/10.5.21.0-24", value: `{"PublicIP":"10.99.0.1","BackendType":"vxlan",` +
			`"BackendData":{"VtepMAC":"01:00:5e:00:00:01"}}`, err: "VtepMAC"},
		{key: "subnets/10.5.21.0-24", value: strings.Repeat("x", maxValue+1), err: "bytes"},
	} {
		got, err := parseLease(kv.Pair{Key: test.key, Value: []byte(test.value)})
		switch {
		case test.err == "" && (err != nil || got != test.want):
			t.Errorf("%s %s: %+v, %v, want %+v", test.key, test.value, got, err, test.want)
		case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
			t.Errorf("%s %.80s: %v, want an error with %q", test.key, test.value, err, test.err)
		}
	}
	for _, l := range []lease{vxlan, {subnet: vxlan.subnet, public: vxlan.public, backend: "udp"}} {
		value, err := l.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseLease(kv.Pair{Key: subnetKey(l.subnet), Value: value, Revision: 7})
		if err != nil || !again.sameNode(l) || again.revision != 7 {
			t.Errorf("%s: %+v, %v", value, again, err)
		}
	}
}

func FuzzStoreValues(f *testing.F) {
	f.Add("subnets/10.5.21.0-24", []byte(`{"PublicIP":"10.99.0.1","BackendType":"vxlan","BackendData":{"VtepMAC":"2::"}}`))
	f.Add("config", []byte(`{"Network":"10.5.0.0/16","SubnetLen":24}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		if c, err := parseConfig(value); err == nil {
			if n := c.subnets(); n == 0 || !c.fits(c.subnet(0)) || !c.fits(c.subnet(n-1)) {
				t.Errorf("%s: %+v has %d subnets", value, c, n)
			}
		}
		if l, err := parseLease(kv.Pair{Key: key, Value: value}); err == nil {
			again, err := l.encode()
			if err != nil {
				t.Fatal(err)
			}
			if back, err := parseLease(kv.Pair{Key: subnetKey(l.subnet), Value: again}); l.backend == backendVXLAN &&
				(err != nil || !back.sameNode(l)) {
				t.Errorf("%s: %+v, %v, was %+v", again, back, err, l)
			}
		}
	})
}
