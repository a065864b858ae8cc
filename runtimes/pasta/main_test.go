package pasta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// TestBadUseEndsWithStatus1: with a sentence that names what is wrong.
func TestBadUseEndsWithStatus1(t *testing.T) {
	for args, want := range map[string]string{
		"--socket /x 1":           "--socket serves a virtual machine",
		"--fd 3 1":                "--fd serves a virtual machine",
		"--no-dhcp-dns 1":         "--no-dhcp-dns is passt's",
		"-T 127.0.0.1/80 1":       "--tcp-ns",
		"-U %lo/80 1":             "--udp-ns",
		"--runas nobody-at-all 1": "there is no user nobody-at-all",
		"--log-size 1 1":          "log-size",
		"-l /nowhere/log -f 1":    "Couldn't open log file",
		fmt.Sprintf("-p /nowhere/pcap -f %d", os.Getpid()): "Couldn't open pcap file",
		"--netns /nowhere/ns -f":                           "Couldn't open network namespace /nowhere/ns",
		"-f 4194304":                                       "Couldn't open network namespace /proc/4194304/ns/net",
	} {
		var stdout, stderr strings.Builder
		if code := Main("pasta", "test", nil, strings.Fields(args), &stdout, &stderr); code != 1 || !strings.Contains(
			stderr.String(), want) {
			t.Errorf("pasta %s: status %d, %q does not name %s", args, code, stderr.String(), want)
		}
	}
	var stdout, stderr strings.Builder
	long := strings.Repeat("a", 254)
	if code := Main("pasta", "test", nil, []string{"--hostname", long, "1"}, &stdout, &stderr); code != 1 ||
		!strings.Contains(stderr.String(), "invalid hostname") {
		t.Errorf("a long name: status %d, %q", code, stderr.String())
	}
	if code := Main("pasta", "test", nil, []string{"--version"}, &stdout, &stderr); code != 0 || !strings.HasPrefix(
		stdout.String(), "pasta ") {
		t.Errorf("--version: status %d, %q", code, stdout.String())
	}
}

// frame is a frame of the namespace's.
func frame(etherType uint16, payload []byte) *vswitch.Frame {
	f := new(vswitch.Frame)
	binary.BigEndian.PutUint16(f.Header[vswitch.HeaderLen-2:], etherType)
	f.Payload = [][]byte{payload}
	return f
}

func packet4(proto, first byte) []byte {
	return append([]byte{0: 0x45, 3: packet.IPv4HeaderLen + 4, 9: proto, packet.IPv4HeaderLen - 1: 0}, first, 0, 0, 0)
}

func packet6(proto, first byte) []byte {
	return append([]byte{0: 0x60, 5: 4, 6: proto, packet.IPv6HeaderLen - 1: 0}, first, 0, 0, 0)
}

func TestProtocolsThatAreSwitchedOffDoNotPass(t *testing.T) {
	tcp4, udp4, echo4, refusal4 := packet4(packet.ProtoTCP, 0), packet4(packet.ProtoUDP, 0),
		packet4(packet.ProtoICMP, icmpEcho), packet4(packet.ProtoICMP, 3)
	tcp6, udp6, echo6, ask6 := packet6(packet.ProtoTCP, 0), packet6(packet.ProtoUDP, 0),
		packet6(packet.ProtoICMPv6, icmp6Echo), packet6(packet.ProtoICMPv6, 135)
	refusal6 := packet6(packet.ProtoICMPv6, 1)
	later4 := packet4(packet.ProtoICMP, icmpEcho)
	later4[7] = 1 // a fragment that is not the first has no type
	for _, c := range []struct {
		args                string
		pass4, pass6, drop4 [][]byte
		drop6               [][]byte
	}{
		{"--no-tcp", [][]byte{udp4, echo4}, [][]byte{udp6, ask6}, [][]byte{tcp4}, [][]byte{tcp6}},
		{"--no-udp", [][]byte{tcp4, echo4}, [][]byte{tcp6, ask6}, [][]byte{udp4}, [][]byte{udp6}},
		{"--no-icmp", [][]byte{tcp4, refusal4, later4}, [][]byte{ask6, refusal6}, [][]byte{echo4}, [][]byte{echo6}},
		{"--no-ndp", [][]byte{tcp4, echo4}, [][]byte{tcp6, echo6, refusal6}, nil,
			[][]byte{ask6, packet6(packet.ProtoICMPv6, 133)}},
	} {
		o, err := Parse([]string{c.args, "1"})
		if err != nil {
			t.Fatal(err)
		}
		pass := o.filter()
		for _, part := range []struct {
			etherType uint16
			packets   [][]byte
			want      bool
		}{{vswitch.EtherTypeIPv4, c.pass4, true}, {vswitch.EtherTypeIPv6, c.pass6, true},
			{vswitch.EtherTypeIPv4, c.drop4, false}, {vswitch.EtherTypeIPv6, c.drop6, false}} {
			for _, p := range part.packets {
				if got := pass(frame(part.etherType, p)); got != part.want {
					t.Errorf("%s: % x passes: %v", c.args, p, got)
				}
			}
		}
		if !pass(frame(vswitch.EtherTypeARP, make([]byte, 28))) || !pass(frame(vswitch.EtherTypeIPv4, []byte{0x45})) ||
			!pass(new(vswitch.Frame)) {
			t.Errorf("%s: what it is not about does not pass", c.args)
		}
	}
	if o, _ := Parse([]string{"1"}); o.filter() != nil {
		t.Error("frames are looked at although nothing is switched off")
	}
}

// TestTheFilterAllocatesNothing, as it sees every frame.
func TestTheFilterAllocatesNothing(t *testing.T) {
	o, _ := Parse([]string{"--no-icmp", "1"})
	pass, f := o.filter(), frame(vswitch.EtherTypeIPv6, packet6(packet.ProtoTCP, 0))
	if n := testing.AllocsPerRun(100, func() { pass(f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCaptureIsAPcapFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pcap")
	c, err := newCapture(path)
	if err != nil {
		t.Fatal(err)
	}
	f := frame(vswitch.EtherTypeIPv4, []byte("first "))
	f.Payload = append(f.Payload, []byte("second"))
	c.show(true, f)
	c.show(false, frame(vswitch.EtherTypeARP, nil))
	if lost, err := c.close(); lost != 0 || err != nil {
		t.Fatalf("%d lost, %v", lost, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const size = vswitch.EthernetHeaderLen + len("first second")
	native := binary.NativeEndian
	switch {
	case len(b) != 24+16+size+16+vswitch.EthernetHeaderLen:
		t.Fatalf("%d bytes: % x", len(b), b)
	case native.Uint32(b) != 0xa1b2c3d4 || native.Uint16(b[4:]) != 2 || native.Uint16(b[6:]) != 4 ||
		native.Uint32(b[20:]) != 1:
		t.Errorf("header % x", b[:24])
	case native.Uint32(b[24+8:]) != uint32(size) || native.Uint32(b[24+12:]) != uint32(size):
		t.Errorf("record % x", b[24:40])
	case !bytes.HasSuffix(b[:24+16+size], []byte("\x08\x00first second")):
		t.Errorf("frame % x", b[40:40+size])
	}
}

func TestTheLogFileStaysBelowItsSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("an earlier line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := openLog(path, minLog)
	if err != nil {
		t.Fatal(err)
	}
	defer l.file.Close()
	line := ""
	for i := range 1000 {
		line = fmt.Sprintf("line %d\n", i)
		if _, err := l.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) > minLog || !strings.HasSuffix(string(b), line) {
			t.Fatalf("%d bytes after line %d, %v", len(b), i, err)
		}
		if first, _, _ := strings.Cut(string(b), "\n"); !strings.HasPrefix(first, "line ") && first !=
			"an earlier line" {
			t.Fatalf("it begins with a part of a line: %q", first)
		}
	}
	if b, _ := os.ReadFile(path); len(b) < minLog/2 {
		t.Errorf("only %d bytes are kept", len(b))
	}
}

func TestUsersToRunAs(t *testing.T) {
	for spec, want := range map[string]string{"0": "0 0", "0:7": "0 7", "0:root": "0 0",
		"4242": "4242 4242", "4242:1": "4242 1", "0x10:010": "16 8", "1": "1 1"} {
		c, err := credential(spec)
		if err != nil || fmt.Sprint(c.Uid, " ", c.Gid) != want {
			t.Errorf("%s: %+v, %v, want %s", spec, c, err, want)
		}
	}
	for _, bad := range []string{
		"", "root", "root:root", "root:7", "nobody-at-all", "0:nobody-at-all", ":", "4294967296",
	} {
		if c, err := credential(bad); err == nil {
			t.Errorf("%q is %+v", bad, c)
		}
	}
}
