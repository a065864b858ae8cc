package test

import (
	"encoding/binary"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/usernet/usernet/observe/capture/filter"
)

// typed are expressions that people type, from the manual pages of tcpdump and pcap-filter and from collections of
// examples. WEB and DB stand for containers' addresses.
var typed = []string{
	"tcp", "udp", "icmp", "icmp6", "arp", "ip", "ip6", "ip or arp", "not arp", "! ip6", "igmp", "sctp", "esp", "ah",
	"host WEB", "src host WEB", "dst host WEB", "src WEB", "dst WEB", "host WEB or DB", "host WEB and not host DB",
	"host WEB and (port 7 or port 53)", "src or dst host WEB", "src and dst host WEB", "ip host WEB", "arp host WEB",
	"port 7", "port 53", "src port 7", "dst port 7", "tcp port 7", "udp port 53", "tcp dst port 7", "port domain",
	"port 7 or 53", "not port 53",
	"portrange 1-100", "tcp portrange 5-10", "src portrange 1024-65535", "tcp src port 7",
	"port http or https", "tcp and not port 22",
	"net 10", "net 10.0.0.0/8", "src net 172.16.0.0/12", "net 10.0.0.0 mask 255.0.0.0", "dst net 192.168.0.0/16",
	"not net 10.0.0.0/8", "net fd00::/8", "ip6 net fe80::/10", "host fe80::1",
	"ether broadcast", "broadcast", "multicast", "ether multicast", "ip multicast", "ip6 multicast",
	"ether proto 0x0800", "ether proto \\ip", "ether proto \\arp", "ether proto \\ip6",
	"ip proto \\tcp", "ip proto 6", "ip6 proto 58", "proto 17", "proto \\icmp", "ip6 proto \\udp",
	"less 60", "greater 100", "len > 100", "len <= 60", "len - 14 > 100", "ip[2:2] > 100",
	"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "tcp[tcpflags] == tcp-syn", "tcp[13] & 2 != 0", "tcp[13] = 18",
	"tcp[tcpflags] & (tcp-syn|tcp-ack) == (tcp-syn|tcp-ack)",
	"tcp[tcpflags] & tcp-push != 0", "tcp[0:2] == 7",
	"(tcp[12:1] & 0xf0) >> 2 > 20", "tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x68656c6c", "tcp[2:2] = 7 or tcp[0:2] = 7",
	"tcp port 7 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)",
	"icmp[icmptype] == icmp-echo", "icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply",
	"icmp[0] == 8",
	"icmp6 and ip6[40] == 135", "icmp6[icmp6type] == icmp6-neighborsolicit", "ip[0] & 0xf != 5",
	"ip[6:2] & 0x1fff != 0",
	"ip[8] < 64", "ip[9] == 17", "ip[12:4] = ip[16:4]", "ether[0] & 1 = 1", "ether[12:2] = 0x0806", "arp[6:2] = 1",
	"udp[8:2] & 0x8000 != 0", "udp[4:2] > 60", "ip6[6] == 17", "ether[5000] = 1 or tcp", "not (tcp[100] = 1)",
	"tcp and (port 7 or port 9) and not (tcp[tcpflags] & tcp-ack = 0)", "(tcp or udp) and not (host WEB and port 53)",
	"icmp or arp or (udp and port 53)", "ip and tcp && host WEB || arp", "tcp or udp and port 53",
}

// libpcapOnly are expressions that libpcap has and usernet refuses, with what it says.
var libpcapOnly = map[string]string{
	"vlan": "not supported", "vlan 5 and tcp": "not supported", "mpls": "not supported", "pppoes": "not supported",
	"ip protochain 6": "not supported", "llc": "not supported", "ip broadcast": "",
}

// TestCaptureFilters compares the frames that expressions choose with those that tcpdump chooses from the same capture.
func TestCaptureFilters(t *testing.T) {
	t.Parallel()
	d := dual(t)
	path := filepath.Join(t.TempDir(), "all.pcapng")
	d.serve("db", []string{"--network", "dual"}, helper, "tcpserve", ":7", "echo")
	c := d.capture("--all", "-w", path)
	h := d.hold("box", d.address("db")+":7")
	h.echoes("hello")
	h.in.Close()
	d.exec("box", "ping", "-c", "2", "-s", "3000", d.address("db")) // in fragments
	d.exec("box", "ping", "-c", "1", d.address6("box"))
	d.exec("box", "busybox", "nslookup", "example.test", d.gateway("box"))
	d.exec("box", helper, "tcpdial", d.address("db")+":9")
	d.exec("box", "ip", "neigh", "flush", "all")
	d.exec("box", "ping", "-6", "-c", "1", "ff02::1%eth0")
	c.end()
	frames := tcpdump(t, path, "")
	if len(frames) < 30 {
		t.Fatalf("only %d frames were captured", len(frames))
	}
	agreed := 0
	names := strings.NewReplacer("WEB", d.address("box"), "DB", d.address("db"))
	for _, text := range typed {
		text = names.Replace(text)
		f, err := filter.Parse(text, filter.Options{})
		if err != nil {
			t.Errorf("%q is refused: %v", text, err)
			continue
		}
		var got [][]byte
		for _, b := range frames {
			if f.Match(&filter.Packet{Ethernet: b[:14], Payload: [][]byte{b[14:]}}) {
				got = append(got, b)
			}
		}
		want := tcpdump(t, path, text)
		if !slices.EqualFunc(got, want, func(a, b []byte) bool { return string(a) == string(b) }) {
			t.Errorf("%q chooses %d frames, tcpdump %d of %d", text, len(got), len(want), len(frames))
			continue
		}
		agreed++
	}
	t.Logf("%d of %d expressions choose the same of %d frames as libpcap", agreed, len(typed), len(frames))
	for text, words := range libpcapOnly {
		if _, err := filter.Parse(text, filter.Options{}); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, want %q", text, err, words)
		}
	}
}

// tcpdump returns the frames of a capture that an expression chooses.
func tcpdump(t *testing.T, path, expression string) (frames [][]byte) {
	t.Helper()
	args := []string{"-r", path, "-w", "-"}
	if expression != "" {
		args = append(args, expression)
	}
	out, err := exec.Command("tcpdump", args...).Output()
	if err != nil || len(out) < 24 {
		t.Fatalf("tcpdump of %q: %v, %d bytes", expression, err, len(out))
	}
	const header, record = 24, 16 // of a pcap file, and of each frame in it
	for rest := out[header:]; len(rest) >= record; {
		n := int(binary.NativeEndian.Uint32(rest[8:]))
		if len(rest) < record+n {
			t.Fatal(fmt.Errorf("tcpdump's output of %q is cut off", expression))
		}
		frames = append(frames, rest[record:record+n])
		rest = rest[record+n:]
	}
	return frames
}
