package network

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestSettingsHaveDefaultsAndTypes(t *testing.T) {
	yes, no := true, false
	def := Settings{
		ICC:             true,
		Masquerade:      true,
		InterfacePrefix: "eth",
		PortGuard:       true,
		Offload:         true,
		Encrypted:       true,
	}
	change := func(f func(*Settings)) Settings {
		s := def
		f(&s)
		return s
	}
	a4, b4, a6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")
	for _, test := range []struct {
		options map[string]string
		want    Settings
	}{
		{nil, def},
		{map[string]string{"foo": "bar"}, def},
		{map[string]string{"com.docker.network.driver.mtu": "9000"}, change(func(s *Settings) { s.MTU = 9000 })},
		{map[string]string{"com.docker.network.driver.mtu": "many"}, def}, // of a damaged store
		{map[string]string{"com.docker.network.driver.mtu": "1"}, def},
		{map[string]string{"com.docker.network.bridge.enable_icc": "false"},
			change(func(s *Settings) { s.ICC = false })},
		{map[string]string{"com.docker.network.bridge.enable_icc": "perhaps"}, def},
		{map[string]string{"com.docker.network.bridge.enable_ip_masquerade": "0"},
			change(func(s *Settings) { s.Masquerade = false })},
		{map[string]string{"usernet.bypass_inbound": "true"}, change(func(s *Settings) { s.BypassInbound = &yes })},
		{map[string]string{"usernet.bypass_outbound": "false"}, change(func(s *Settings) { s.BypassOutbound = &no })},
		{map[string]string{"com.docker.network.enable_ipv6": "true"}, change(func(s *Settings) { s.IPv6 = &yes })},
		{map[string]string{"usernet.dns": "192.0.2.53,192.0.2.54:53"},
			change(func(s *Settings) { s.DNS = []string{"192.0.2.53", "192.0.2.54:53"} })},
		{map[string]string{"usernet.allow_egress": ""}, def},
		{map[string]string{"com.docker.network.host_ipv4": "192.0.2.1"},
			change(func(s *Settings) { s.hostIPv4, s.Outbound4 = a4, a4 })},
		{
			map[string]string{"com.docker.network.host_ipv4": "192.0.2.1", "usernet.outbound_addr": "192.0.2.2"},
			change(func(s *Settings) { s.hostIPv4, s.Outbound4 = a4, b4 }),
		},
		{map[string]string{"usernet.outbound_addr6": "2001:db8::1"}, change(func(s *Settings) { s.Outbound6 = a6 })},
		{map[string]string{"usernet.outbound_addr6": "192.0.2.1"}, def},
		{map[string]string{"com.docker.network.container_iface_prefix": "net"},
			change(func(s *Settings) { s.InterfacePrefix = "net" })},
	} {
		n := &Network{Options: test.options}
		if got := n.Settings(); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%v:\n%+v, want\n%+v", test.options, got, test.want)
		}
	}
	e := &Endpoint{DriverOpts: map[string]string{"usernet.port_guard": "false", "usernet.offload": "no"}}
	if s := e.Settings(); s.PortGuard || !s.Offload {
		t.Errorf("%+v", s)
	}
}

// TestEachOptionIsDescribedAndMeansSomething goes through the table: whatever has values for completion takes them, and
// takes nothing that is no value.
func TestEachOptionIsDescribedAndMeansSomething(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range append(append([]Option{}, NetworkOptions...), EndpointOptions...) {
		if seen[o.Name] || o.Doc == "" || o.set == nil {
			t.Errorf("%s: twice, or without a text or a meaning", o.Name)
		}
		seen[o.Name] = true
		for _, v := range o.Values {
			if err := o.set(new(Settings), v); err != nil {
				t.Errorf("%s offers %s, and refuses it: %v", o.Name, v, err)
			}
		}
		if len(o.Values) > 0 && o.Name != "usernet.egress" { // that one is checked where modes are known
			if err := o.set(new(Settings), "\x00"); err == nil {
				t.Errorf("%s takes anything", o.Name)
			}
		}
	}
}

// TestTheNumberOnTheWire is from 1 to the largest that is not kept back, in checks, in texts and in what is documented.
func TestTheNumberOnTheWire(t *testing.T) {
	const largest = "16777214"
	options := 0
	for _, o := range slices.Concat(OverlayOptions, VXLANOptions) {
		if o.Name != "usernet.vni" && o.Name != "com.docker.network.driver.overlay.vxlanid_list" {
			continue
		}
		options++
		if !strings.Contains(o.Doc, "1 to "+largest) {
			t.Errorf("%s: %q names another range", o.Name, o.Doc)
		}
		var s Settings
		if err := o.set(&s, largest); err != nil || s.VNI != 1<<24-2 {
			t.Errorf("%s: %s gives %d, %v", o.Name, largest, s.VNI, err)
		}
		for value, words := range map[string]string{
			"16777215": "in use between usernet's hosts", "0": "", "16777216": "", "4294967296": "", "x": "", "": "",
		} {
			err := o.set(&s, value)
			if err == nil || !strings.Contains(err.Error(), "1 to "+largest) || !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %q: %v", o.Name, value, err)
			}
		}
	}
	if options != 2 {
		t.Errorf("%d options have a number on the wire", options)
	}
}
