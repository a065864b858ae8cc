package filter

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

// frame is one from hexadecimal text, its payload in two pieces.
func frame(t testing.TB, text string) *Packet {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	cut := min(len(b), 14+22)
	return &Packet{Ethernet: b[:14], Payload: [][]byte{b[14:cut], b[cut:]}}
}

// Frames, by what they are.
const (
	synTo80 = "0242 0a01 0001 0242 0a01 0002 0800" + // 10.1.0.2:40000 to 192.0.2.7:80, a SYN
		"4500 0028 0001 4000 4006 0000 0a01 0002 c000 0207" + "9c40 0050 0000 0001 0000 0000 5002 ffff 0000 0000"
	query6 = "0242 0a01 0001 0242 0a01 0002 86dd" + // fd00::2 to fd00::1, UDP 5353 to 53
		"6000 0000 000c 1140 fd00 0000 0000 0000 0000 0000 0000 0002 fd00 0000 0000 0000 0000 0000 0000 0001" +
		"14e9 0035 000c 0000 0102 0304"
	whoHas = "ffff ffff ffff 0242 0a01 0002 0806" + // 10.1.0.2 asks for 10.1.0.1
		"0001 0800 0604 0001 0242 0a01 0002 0a01 0002 0000 0000 0000 0a01 0001"
	laterFragment = "0242 0a01 0001 0242 0a01 0002 0800" + // UDP, offset 8
		"4500 001c 0001 0001 4011 0000 0a01 0002 c000 0207" + "0035 0035 0000 0000"
)

func lookup(name string) []netip.Addr {
	if name == "web-1" {
		return []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")}
	}
	return nil
}

func TestExpressions(t *testing.T) {
	for _, test := range []struct{ text, syn, query, arp, fragment string }{ // "y": it matches
		{"", "y", "y", "y", "y"},
		{"ip", "y", "", "", "y"},
		{"ip6 or arp", "", "y", "y", ""},
		{"not arp", "y", "y", "", "y"},
		{"tcp", "y", "", "", ""},
		{"udp", "", "y", "", "y"},
		{"port 80", "y", "", "", ""},
		{"port 53", "", "y", "", ""}, // the fragment has no ports
		{"udp port domain or 80", "", "y", "", ""},
		{"tcp dst port http", "y", "", "", ""},
		{"src port 80", "", "", "", ""},
		{"portrange 70-90", "y", "", "", ""},
		{"portrange 5000-6000 and udp", "", "y", "", ""},
		{"host 10.1.0.2", "y", "", "y", "y"},
		{"host web-1", "y", "y", "y", "y"},
		{"web-1 and not port 53", "y", "", "y", "y"},
		{"dst host 192.0.2.7", "y", "", "", "y"},
		{"src or dst host fd00::1", "", "y", "", ""},
		{"src and dst host 10.1.0.2", "", "", "", ""},
		{"net 10.1", "y", "", "y", "y"},
		{"net 192.0.2.0 mask 255.255.255.0", "y", "", "", "y"},
		{"dst net fd00::/8", "", "y", "", ""},
		{"arp host 10.1.0.1", "", "", "y", ""},
		{"ether host 02:42:0a:01:00:01", "y", "y", "", "y"},
		{"ether src 02:42:0a:01:00:02", "y", "y", "y", "y"},
		{"broadcast", "", "", "y", ""},
		{"multicast", "", "", "y", ""},
		{"ether proto \\arp", "", "", "y", ""},
		{"ether proto 0x86dd", "", "y", "", ""},
		{"ip proto \\udp", "", "", "", "y"},
		{"proto 17", "", "y", "", "y"},
		{"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "y", "", "", ""},
		{"tcp[13] == 2 and tcp[tcpflags] & tcp-ack == 0", "y", "", "", ""},
		{"tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420", "", "", "", ""},
		{"ip[0] & 0xf != 5", "", "", "", ""},
		{"ip[6:2] & 0x1fff != 0", "", "", "", "y"},
		{"ip6[6] = 17", "", "y", "", ""},
		{"len > 60", "", "y", "", ""},
		{"len-14 == 40", "y", "", "", ""},
		{"less 42", "", "", "y", "y"},
		{"greater 54 and (tcp or udp)", "y", "y", "", ""},
		{"(len + 6) / 2 == 30", "y", "", "", ""},
		{"1 / (len - 54) == 0 or ip6 or arp", "", "y", "y", "y"}, // divided by zero: never wanted
		{"ether[100] = 0 or tcp", "", "", "", ""},                // too short: never wanted
		{"not (ether[100] = 0)", "", "", "", ""},
		{"outbound and arp", "", "", "y", ""},
		{"inbound", "", "", "", ""},
		{"tcp and port 80 or arp and not port 80", "", "", "y", ""}, // from the left
		{"tcp && !(port 22 || port 23)", "y", "", "", ""},
		{"icmp or icmp6 or igmp or sctp or esp", "", "", "", ""},
	} {
		f, err := Parse(test.text, Options{Lookup: lookup})
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
			continue
		}
		for _, each := range []struct{ name, frame, want string }{
			{"SYN", synTo80, test.syn}, {"query", query6, test.query}, {"ARP", whoHas, test.arp},
			{"fragment", laterFragment, test.fragment},
		} {
			p := frame(t, each.frame)
			p.Out = true
			if got := f.Match(p); got != (each.want == "y") {
				t.Errorf("%q of the %s: %v", test.text, each.name, got)
			}
		}
	}
}

// TestRefusals has what is wrong, or not supported, said by its place and name.
func TestRefusals(t *testing.T) {
	for text, words := range map[string]string{
		"vlan 5":                            "vlan is not supported",
		"ip protochain 6":                   "protochain is not supported",
		"gateway x":                         "gateway is not supported",
		"host nobody":                       `called "nobody"`,
		"port 70000":                        `"70000" is no port`,
		"port":                              "port is to be is missing",
		"tcp host 10.0.0.1":                 "tcp does not go with a host",
		"ip port 80":                        "ip does not go with port",
		"net 10.0.0.1/8":                    "bits beyond its length: give 10.0.0.0/8",
		"host 10.0.0.0/8":                   "give net 10.0.0.0/8",
		"(tcp":                              "parenthesis is missing",
		"tcp)":                              `position 3: ")" was not expected`,
		"tcp and":                           "missing at the end",
		"tcp[0:3] = 1":                      "1, 2 or 4 bytes",
		"tcp[0] = ":                         "a number was expected",
		"foo[0] = 1":                        `"foo" has no fields`,
		"ether host 10.0.0.1":               "no MAC address",
		"tcp 80":                            "was not expected behind tcp",
		"tcp @":                             "no part of an expression",
		strings.Repeat("(", 100):            "nested too deeply",
		strings.Repeat("not ", 100):         "nested too deeply",
		strings.Repeat("a", 5000):           "4096 are possible",
		"len > " + strings.Repeat("-", 100): "nested too deeply",
	} {
		if _, err := Parse(text, Options{Lookup: lookup}); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, want %s", text, err, words)
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	f, err := Parse("tcp port 80 and host web-1 and tcp[13] & 2 != 0 and not net 172.16.0.0/12", Options{Lookup: lookup})
	if err != nil {
		t.Fatal(err)
	}
	p := frame(t, synTo80)
	if n := testing.AllocsPerRun(100, func() {
		if !f.Match(p) {
			t.Error("no match")
		}
	}); n != 0 {
		t.Errorf("%v allocations for a frame", n)
	}
}

// FuzzParse parses any text, and has what parses look at any frame.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"tcp port 80 or 443",
		"tcp[((tcp[12:1] & 0xf0) >> 2):4] = 1", "not host a-1 and (len > 5)"} {
		f.Add(text, []byte(strings.Repeat("E", 60)))
	}
	f.Fuzz(func(t *testing.T, text string, b []byte) {
		filter, err := Parse(text, Options{Lookup: lookup})
		if err != nil {
			return
		}
		n := min(14, len(b))
		filter.Match(&Packet{Ethernet: b[:n], Payload: [][]byte{b[n:]}})
	})
}
