package engines

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPastaLeadsNamespacePortsToTheHost has -T and -U: named, mapped, ranges with exclusions, both families, and only
// those.
func TestPastaLeadsNamespacePortsToTheHost(t *testing.T) {
	port := serveHost(t, "127.0.0.1:0", "loopback")
	port6 := serveHost(t, "[::1]:0", "loopback6")
	udp := echoHost(t)
	n := newNamespace(t)
	n.pasta("--quiet", "-t", "none", "-u", "none", "-T",
		fmt.Sprintf("18850:%d,18851:%d,18860-18869,~18865", port, port6), "-U", fmt.Sprintf("18852:%d", udp))
	for name, c := range map[string]struct{ command, want string }{
		"a port":     {"curl -s -m 10 http://127.0.0.1:18850/", "loopback"},
		"of IPv6":    {"curl -s -m 10 'http://[::1]:18851/'", "loopback6"},
		"a datagram": {helper + " udpdial 127.0.0.1:18852", "hello"},
		// accepted, and reset: nobody listens on the host
		"a refusal":   {"curl -s -m 10 http://127.0.0.1:18860/ || echo failed", "failed"},
		"an excluded": {"curl -s -m 10 http://127.0.0.1:18865/; echo $?", "7"},
		// making its sockets leaves the routes alone
		"the way out": {"for f in -4 -6; do ip $f -o route show default | cut -d ' ' -f 3; done", "192.0.2.1\n2001:db8::1"},
		"another":     {fmt.Sprintf("curl -s -m 10 http://127.0.0.1:%d/; echo $?", port), "7"},
	} {
		if r := n.in("sh", "-c", c.command); strings.TrimSpace(r.stdout) != c.want {
			t.Errorf("%s: want %q: %v", name, c.want, r)
		}
	}
	if r := n.in("curl", "-s", "-m", "5", "http://192.0.2.2:18850/"); r.code == 0 {
		t.Errorf("the port is at other addresses than the loopback's: %v", r)
	}
}

// TestPastaFollowsTheHost: by default what begins to listen on the host's loopback is at the namespace's, until it
// ends.
func TestPastaFollowsTheHost(t *testing.T) {
	n := newNamespace(t)
	n.pasta("--quiet", "-t", "none", "-u", "none")
	l, err := net.Listen("tcp", "127.0.0.1:18870")
	if err != nil {
		t.Fatal(err)
	}
	serveText(t, l, "loopback")
	eventually(t, func() error {
		if r := n.in("curl", "-s", "-m", "5", "http://127.0.0.1:18870/"); r.stdout != "loopback" {
			return fmt.Errorf("the host's service is not in the namespace: %v", r)
		}
		return nil
	})
	l.Close()
	eventually(t, func() error {
		if r := n.in("curl", "-s", "-m", "5", "http://127.0.0.1:18870/"); r.code != 7 {
			return fmt.Errorf("the port is still there: %v", r)
		}
		return nil
	})
}

// TestPastaDoesNotFollowItself: a port that is forwarded one way is not taken for a service, and forwarded back.
func TestPastaDoesNotFollowItself(t *testing.T) {
	n := newNamespace(t)
	n.pasta("--quiet") // all four are auto
	stop := n.serve("18871", n.dir)
	eventually(t, func() error { return isOpen("127.0.0.1:18871") })
	stop()
	eventually(t, func() error { return refuses("127.0.0.1:18871") })
	l, err := net.Listen("tcp", "127.0.0.1:18872")
	if err != nil {
		t.Fatal(err)
	}
	serveText(t, l, "loopback")
	eventually(t, func() error {
		if r := n.in("curl", "-s", "-m", "5", "http://127.0.0.1:18872/"); r.stdout != "loopback" {
			return fmt.Errorf("not in the namespace: %v", r)
		}
		return nil
	})
	n.serve("18873", n.dir) // once this is followed, so is what was there before
	eventually(t, func() error { return isOpen("127.0.0.1:18873") })
	if c, err := net.ListenPacket("udp", "127.0.0.1:18872"); err != nil {
		t.Errorf("the port of the host's service is a datagram port of the host's, too: %v", err)
	} else {
		c.Close()
	}
	l.Close()
	eventually(t, func() error { return refuses("127.0.0.1:18872") })
}

// TestPastaPublishesWhereItIsTold: at an address, by an interface, at an address that comes later, and without
// excluded ports.
func TestPastaPublishesWhereItIsTold(t *testing.T) {
	n := newNamespace(t)
	n.pasta("--quiet", "--freebind", "-u", "none", "-T", "none", "-U", "none",
		"-t", "192.0.2.2/18880:80", "-t", "%eth0/18881:80", "-t", "198.51.100.7/18882:80", "-t",
		"18884-18886:80-82,~18885")
	n.serve("80", n.dir)
	n.serve("81", n.dir)
	for address, want := range map[string]bool{
		"192.0.2.2:18880": true, "127.0.0.1:18880": false, "127.0.0.1:18881": false, "127.0.0.1:18884": true,
		"127.0.0.1:18885": false,
	} {
		if want {
			eventually(t, func() error { return isOpen(address) })
		} else if refuses(address) != nil {
			t.Errorf("%s is open", address)
		}
	}
	fetchFrom(t, "http://192.0.2.2:18881/", "404") // by eth0
	if _, err := net.Listen("tcp", "192.0.2.2:18880"); err == nil {
		t.Error("the port is not taken")
	}
}

// TestPastaKeepsDatagramsInOrder: the first that come to a published port too, which socat's transfers rely on.
func TestPastaKeepsDatagramsInOrder(t *testing.T) {
	for try := range 5 {
		n := newNamespace(t)
		n.pasta("--quiet", "-t", "none", "-T", "none", "-U", "none", "-u", "127.0.0.1/18890:90")
		file := filepath.Join(n.dir, "received")
		stop := n.background("socat", "-u", "UDP4-RECV:90", "CREATE:"+file)
		eventually(t, func() error {
			if r := n.in("sh", "-c", "cat /proc/net/udp"); !strings.Contains(r.stdout, ":005A ") {
				return fmt.Errorf("nobody receives: %v", r)
			}
			return nil
		})
		c, err := net.Dial("udp", "127.0.0.1:18890")
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		for i := range 20 {
			text := fmt.Sprintf("%d ", i)
			want += text
			if _, err := io.WriteString(c, text); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		eventually(t, func() error {
			if b, err := os.ReadFile(file); err != nil || len(b) < len(want) {
				return fmt.Errorf("received is %q, %v", b, err)
			}
			return nil
		})
		if b, _ := os.ReadFile(file); string(b) != want {
			t.Errorf("try %d: %q", try, b)
		}
		stop()
		n.end()
	}
}

// serveHost serves a text on the host, and returns the port.
func serveHost(t *testing.T, address, text string) int {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	serveText(t, l, text)
	return l.Addr().(*net.TCPAddr).Port
}

// echoHost sends datagrams back, on the host's loopback.
func echoHost(t *testing.T) int {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(b[:n], from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// isOpen is an error while a TCP port refuses.
func isOpen(address string) error {
	c, err := net.Dial("tcp", address)
	if err == nil {
		c.Close()
	}
	return err
}

// fetchFrom has the machine outside fetch a page, which it may not find, and looks for a word in what it gets.
func fetchFrom(t *testing.T, url, word string) {
	t.Helper()
	c, err := net.Dial("tcp", "192.0.2.1:7001")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, url+"\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || !strings.Contains(string(b), word) {
		t.Errorf("%s says to a machine outside: %q, %v", url, b, err)
	}
}

// TestPastaJoinsLoopbacks: with --host-lo-to-ns-lo the host's loopback leads to the namespace's, and other clients do
// not.
func TestPastaJoinsLoopbacks(t *testing.T) {
	n := newNamespace(t)
	n.pasta("-t", "18825:80,18826:81", "-u", "18825:80,18826:81", "--host-lo-to-ns-lo")
	for _, at := range []string{"127.0.0.1:80", "[::1]:80", "192.0.2.2:80"} {
		n.background(helper, "tcpserve", at, "addr")
		n.background(helper, "udpserve", at, "addr")
	}
	for at, sees := range map[string]string{"127.0.0.1:18825": "127.0.0.1:", "[::1]:18825": "[::1]:"} {
		eventually(t, func() error {
			for _, dial := range []string{"tcpdial", "udpdial"} {
				if r := n.try(helper, dial, at); !strings.Contains("\n"+r.stdout, "\n"+sees) {
					return fmt.Errorf("the service at the loopback does not see %s: %v", sees, r)
				}
			}
			return nil
		})
	}
	eventually(t, func() error {
		for _, proto := range []string{"tcp", "udp"} {
			if seen := fromOutside(t, proto, "192.0.2.2:18825"); !strings.HasPrefix(seen, "192.0.2.1:") {
				return fmt.Errorf("the service at the interface sees %q by %s", seen, proto)
			}
		}
		return nil
	})
	for range 80 { // more than one batch of sockets
		for _, dial := range []string{"tcpdial", "udpdial"} {
			if r := n.try(helper, dial, "127.0.0.1:18825"); !strings.Contains("\n"+r.stdout, "\n127.0.0.1:") {
				t.Fatal(r)
			}
		}
	}
	if r := n.try(helper, "tcpdial", "127.0.0.1:18826"); strings.Contains(r.stdout, "\n127.0.0.1:") {
		t.Errorf("a port at which nobody listens: %v", r)
	}
}
