package sandbox

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// documented is the ruleset in dnsTable's comment, a line for each, with the given port.
func documented(t *testing.T, port int) []string {
	t.Helper()
	f, err := os.Open("dnsredirect.go")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if line, ok := strings.CutPrefix(s.Text(), "//\t"); ok {
			line = strings.NewReplacer("PORT", fmt.Sprint(port), "priority -310",
				"priority raw - 10").Replace(strings.TrimSpace(line))
			if !strings.HasPrefix(line, "flags ") { // nft before 1.0.9 does not know the second
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// TestRulesAreThoseDocumented compares what the kernel has with the comment, and adds the rules twice.
func TestRulesAreThoseDocumented(t *testing.T) {
	var replies [2]*Reply
	text, code := output(t, Spec{Command: sh("nft list ruleset")}, Files{}, func(p *Process) {
		for i := range replies {
			var err error
			replies[i], err = (*Helper)(
				nil).Configure(t.Context(), Target{Pid: p.Pid()},
				Request{DNSStub: netip.MustParseAddrPort("127.0.0.11:53")})
			if err != nil {
				t.Fatal(err)
			}
			if replies[i].DNSRules == nil {
				t.Fatal("there is no owner of the rules")
			}
			if i == 0 {
				replies[i].close() // or they could not be replaced
			}
		}
	})
	defer replies[1].close()
	var got []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, " #") // nft says who owns a table
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "flags") {
			got = append(got, line)
		}
	}
	port := replies[1].DNSListener.Addr().(*net.TCPAddr).Port
	if want := documented(t, port); code != 0 || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("status %d, the rules are\n%s\nwant\n%s", code, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestWithoutRulesTheStubIsAtPort53 has somebody else own the table.
func TestWithoutRulesTheStubIsAtPort53(t *testing.T) {
	output(t, Spec{Command: sh("true")}, Files{}, func(p *Process) {
		request := Request{DNSStub: netip.MustParseAddrPort("127.0.0.11:53")}
		first, err := (*Helper)(nil).Configure(t.Context(), Target{Pid: p.Pid()}, request)
		if err != nil {
			t.Fatal(err)
		}
		defer first.close()
		second, err := (*Helper)(nil).Configure(t.Context(), Target{Pid: p.Pid()}, request)
		if err != nil {
			t.Fatal(err)
		}
		defer second.close()
		if at := second.DNSPacket.LocalAddr().String(); at != "127.0.0.11:53" || second.DNSRules != nil {
			t.Errorf("the stub is at %s, owner of rules %v", at, second.DNSRules)
		}
	})
}

func TestBoundExactlyTellsOneAddressFromAll(t *testing.T) {
	const attempts = 20 // other programs of this machine bind ports of the same number, by the other protocol too
	for _, network := range []string{"udp4", "tcp4"} {
		for host, want := range map[string]bool{"127.0.0.1": true, "0.0.0.0": false} {
			var got bool
			var err error
			for range attempts {
				if got, err = boundExactlyAt(t, network, host); err != nil || got == want {
					break
				}
			}
			if err != nil || got != want {
				t.Errorf("%s at %s: bound exactly %v, %v", network, host, got, err)
			}
		}
	}
}

// TestListeningSocketsAreDiagnosed holds the way without /proc/net against sockets of this namespace.
func TestListeningSocketsAreDiagnosed(t *testing.T) {
	for host, want := range map[string]bool{"127.0.0.1": true, "0.0.0.0": false} {
		l, err := net.Listen("tcp4", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(l.Addr().(*net.TCPAddr).Port))
		got, err := tcpListens(at)
		if errors.Is(err, unix.ENOENT) {
			t.Skip("this kernel has no module tcp_diag")
		}
		if err != nil || got != want {
			t.Errorf("%s listens at exactly %v: %v, %v", l.Addr(), at, got, err)
		}
	}
}

// boundExactlyAt binds a free port at host, and asks whether it is bound at 127.0.0.1 exactly.
func boundExactlyAt(t *testing.T, network, host string) (bool, error) {
	t.Helper()
	var at net.Addr
	if network == "udp4" {
		c, err := net.ListenPacket(network, host+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		at = c.LocalAddr()
	} else {
		l, err := net.Listen(network, host+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		at = l.Addr()
	}
	_, port, err := net.SplitHostPort(at.String())
	if err != nil {
		t.Fatal(err)
	}
	return boundExactly(netip.MustParseAddrPort("127.0.0.1:" + port))
}

// FuzzSocketTable reads what is no table of the kernel's.
func FuzzSocketTable(f *testing.F) {
	at := netip.MustParseAddrPort("127.0.0.11:53")
	f.Add([]byte("  sl  local_address rem_address\n 1: 0B00007F:0035 00000000:0000 07\n"))
	f.Add([]byte("\n:\n0B00007F:0035"))
	f.Fuzz(func(t *testing.T, table []byte) {
		if listsLocal(table, at) && len(table) < len("0B00007F:0035") {
			t.Error("found where there is no room for it")
		}
	})
}

func TestListedAddressesAreWholeAndLocal(t *testing.T) {
	line := func(local, remote string) string {
		return "  0: " + local + " " + remote + " 07 00000000:00000000 00:0 0\n"
	}
	const heading = "  sl  local_address rem_address   st tx_queue rx_queue\n"
	at := netip.MustParseAddrPort("127.0.0.11:53")
	// The kernel prints an address as one number in the machine's byte order.
	hex := func(addr string, port int) string {
		b := netip.MustParseAddr(addr).As4()
		return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(b[:]), port)
	}
	own, all, none := hex("127.0.0.11", 53), hex("0.0.0.0", 53), hex("0.0.0.0", 0)
	for _, c := range []struct {
		name, table string
		want        bool
	}{
		{"nothing", "", false},
		{"a heading", heading, false},
		{"its address", heading + line(own, none), true},
		{"its address, last", heading + line(all, none) + line(own, none), true},
		{"all addresses", heading + line(all, none), false},
		{"another port", heading + line(hex("127.0.0.11", 54), none), false},
		{"another address", heading + line(hex("127.0.0.10", 53), none), false},
		{"as the other end", heading + line(hex("127.0.0.1", 4096), own), false},
		{"cut off", heading + "  0:", false},
	} {
		if got := listsLocal([]byte(c.table), at); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
