package engines

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPastaStartsACommand: in namespaces of its own, with its streams, environment and status.
func TestPastaStartsACommand(t *testing.T) {
	u := newUser(t)
	pidFile := filepath.Join(u.dir, "pid")
	script := "id -u; echo $$; ip -br addr show eth0; curl -s -m 10 http://192.0.2.1:8000/; sleep 1 | ncat 192.0.2.1 7000; cat " + pidFile
	r := u.try(pasta, "--config-net", "--quiet", "--no-map-gw", "-t", "none", "-u", "none", "-T", "none", "-U", "none",
		"-P", pidFile, "sh", "-c", script)
	lines := strings.Split(r.stdout, "\n")
	if r.code != 0 || len(lines) < 6 || lines[0] != "0" || lines[1] != "1" ||
		!strings.Contains(lines[2], "192.0.2.2/24") ||
		lines[3] != "outside" || lines[4] != "192.0.2.2" || lines[5] == "" {
		t.Errorf("%v", r)
	}
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"sh", "-c", "exit 7"}, 7, ""},
		{[]string{"sh", "-c", "sh -c 'kill -TERM $$'"}, 143, ""},
		{[]string{"/nonexistent/program"}, 1, "Failed to start command or shell"},
		{[]string{"--netns", "/x", "sh"}, 1, "without --netns"},
	} {
		if r := u.try(pasta, append([]string{"--quiet"}, c.args...)...); r.code != c.code || !strings.Contains(r.stderr,
			c.text) {
			t.Errorf("want status %d and %q: %v", c.code, c.text, r)
		}
	}
	shell := *u
	shell.environ = append(shell.environ, "SHELL=/bin/sh", "ENV=")
	if r := shell.try("sh", "-c", "echo 'echo $0; exit 3' | "+pasta+" --quiet"); r.code != 3 || !strings.HasPrefix(
		r.stdout, "-sh") {
		t.Errorf("a login shell: %v", r)
	}
}

// TestPastaEndsItsCommand with itself.
func TestPastaEndsItsCommand(t *testing.T) {
	u := newUser(t)
	l, err := net.Listen("tcp", "192.0.2.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command(pasta, "--config-net", "--quiet", "--map-guest-addr", "192.0.2.99", "sh", "-c",
		fmt.Sprintf("ncat 192.0.2.99 %d", l.Addr().(*net.TCPAddr).Port))
	cmd.Env = u.environ
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if n, err := c.Read(make([]byte, 1)); err == nil || n > 0 {
		t.Error("the command goes on without pasta")
	}
	if code := cmd.ProcessState.ExitCode(); code != 137 {
		t.Errorf("status %d, want that of a process that was killed", code)
	}
}

// TestPastaSwitchesProtocolsOff has nothing answer, and no refusal either.
func TestPastaSwitchesProtocolsOff(t *testing.T) {
	for option, c := range map[string]struct{ fails, works string }{
		"--no-tcp":  {"curl -s -m 3 http://192.0.2.1:8000/", "dig +short +time=5 @192.0.2.1 outside.example | grep ."},
		"--no-udp":  {"dig +short +time=2 +tries=1 @192.0.2.1 outside.example", "curl -s -m 10 http://192.0.2.1:8000/"},
		"--no-icmp": {"ping -c 1 -W 2 192.0.2.1", "curl -s -m 10 http://192.0.2.1:8000/"},
		"--no-ndp":  {"curl -s -m 3 'http://[2001:db8::1]:8000/'", "curl -s -m 10 http://192.0.2.1:8000/"},
	} {
		t.Run(option, func(t *testing.T) {
			u := newUser(t)
			script := c.works + " >&2 || exit 8; " + c.fails + " >&2 && exit 9; exit 0"
			if r := u.try(pasta, "--config-net", "--quiet", "--no-map-gw", option, "sh", "-c", script); r.code != 0 {
				t.Errorf("8: the rest does not work; 9: it is not switched off: %v", r)
			}
		})
	}
}

// TestPastaCaptures: the file has what went each way.
func TestPastaCaptures(t *testing.T) {
	u := newUser(t)
	file := filepath.Join(u.dir, "pcap")
	u.ok(pasta, "--config-net", "--quiet", "--no-map-gw", "-p", file, "curl", "-s", "-m", "10",
		"http://192.0.2.1:8000/")
	b, err := os.ReadFile(file)
	if err != nil || len(b) < 24 || binary.NativeEndian.Uint32(b) != 0xa1b2c3d4 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if text := string(b); !strings.Contains(text, "GET / HTTP/1.1") || !strings.Contains(text, "outside\n") {
		t.Errorf("%d bytes without the request or its answer", len(b))
	}
	for b = b[24:]; len(b) > 0; b = b[16+binary.NativeEndian.Uint32(b[8:]):] {
		if len(b) < 16 || int(binary.NativeEndian.Uint32(b[8:])) > len(b)-16 {
			t.Fatalf("a record is cut short: % x", b[:min(16, len(b))])
		}
	}
}

// TestPastaTellsNamesByDHCP: a client is told host name, full name, name server and search domain.
func TestPastaTellsNamesByDHCP(t *testing.T) {
	u := newUser(t)
	hook := filepath.Join(u.dir, "hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\n[ \"$1\" != bound ] || env\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out := u.ok(pasta, "--quiet", "-H", "guest7", "--fqdn", "guest7.example", "--dhcp-dns", "-D", "192.0.2.53",
		"--dhcp-search", "-S", "a.example b.example",
		"sh", "-c", "ip link set eth0 up; busybox udhcpc -i eth0 -q -n -f -O hostname -O 81 -s "+hook)
	for _, want := range []string{"hostname=guest7", "dns=192.0.2.53", "search=a.example b.example", "ip=192.0.2.2",
		"opt81="} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}
