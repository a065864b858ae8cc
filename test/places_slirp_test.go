package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// askAPI sends one request to a place's API socket and returns the answer.
func askAPI(t testing.TB, socket, request string) string {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, request) // a server that has read enough may be gone
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestSlirp4netnsWaysToTheHost: what the gateway's address leads to with each of the options about that, and the name
// server's.
func TestSlirp4netnsWaysToTheHost(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	source := make(chan string, 10)
	listen(t, fmt.Sprintf("0.0.0.0:%d", port),
		func(c *net.TCPConn) { source <- c.RemoteAddr().(*net.TCPAddr).IP.String(); c.Close() })
	gateway := fmt.Sprintf("10.0.2.2:%d", port)
	for _, test := range []struct {
		name string
		args []string
		to   string
		want string // what a connection meets
		from string // and the host's service sees
	}{
		{"host", nil, gateway, "ok", "127.0.0.1"},
		{"host, of an address", []string{"--outbound-addr=" + host4}, gateway, "ok", host4},
		{"no host", []string{"--disable-host-loopback"}, gateway, "ENETUNREACH", ""},
		{"no host, by IPv6", []string{"--disable-host-loopback", "-6"}, fmt.Sprintf("[fd00::2]:%d", port),
			"ENETUNREACH", ""},
		{"no name server", []string{"--disable-dns"}, "10.0.2.3:53", "ETIMEDOUT", ""},
		{"name server", nil, "10.0.2.3:53", "ok", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := startForeign(d.in(t))
			f.slirp4netns(nil, append([]string{"-c"}, test.args...)...)
			if strings.HasPrefix(test.to, "[") {
				eventually(t, func() error { // the address comes by a router advertisement
					if out := f.run("ip", "-6", "addr", "show", "tap0").stdout; !strings.Contains(out, "fd00::") ||
						strings.Contains(out, "tentative") {
						return fmt.Errorf("no address: %s", out)
					}
					return nil
				})
			}
			if test.want == "ETIMEDOUT" { // netcat, since it is told how long to wait
				if r := f.run("ncat", "-v", "-w", "2", "10.0.2.3", "53"); !strings.Contains(r.stderr, "TIMEOUT") {
					t.Errorf("want no answer: %v", r)
				}
				return
			}
			if r := f.run(helper, "tcpdial", test.to); !strings.HasPrefix(r.stdout, test.want) {
				t.Errorf("want %s: %v", test.want, r)
			}
			if test.from == "" {
				return
			}
			select {
			case got := <-source:
				if got != test.from {
					t.Errorf("the service sees %s, want %s", got, test.from)
				}
			case <-time.After(patience):
				t.Error("nobody came")
			}
		})
	}
}

// TestSlirp4netnsRefusals: what cannot be done ends with slirp4netns's status, 1, and a sentence that says what and
// where.
func TestSlirp4netnsRefusals(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	f := startForeign(d)
	pid := strconv.Itoa(f.pid)
	f.slirp4netns(nil, "-c")
	for _, test := range []struct {
		name, words string
		args        []string
	}{
		{"an option that does not exist", "unrecognized option '--nosuch'", []string{"--nosuch", pid, "tap0"}},
		{"a process that is gone", "/proc/999999999/ns/net: no such file or directory",
			[]string{"-c", "999999999", "tap1"}},
		{"a path that is gone", "existing path expected when --netns-type=path: stat /nowhere", []string{"-c", "--netns-type=path", "/nowhere", "tap1"}},
		{"a path to something else", "/etc/passwd is not a namespace",
			[]string{"-c", "--netns-type=path", "/etc/passwd", "tap1"}},
		{"a path to another kind of namespace", "/proc/self/ns/mnt is another kind of namespace, not a network namespace",
			[]string{"-c", "--netns-type=path", "/proc/self/ns/mnt", "tap1"}},
		{"a user namespace that is none", "is another kind of namespace, not a user namespace",
			[]string{"-c", "--userns-path=/proc/self/ns/mnt", pid, "tap1"}},
		{"a TAP that another has", "interface tap0 is in use in this sandbox already", []string{"-c", pid, "tap0"}},
		{"an interface that is no TAP", "an interface of that name exists and is no TAP", []string{"-c", pid, "lo"}},
		{"a name that is too long", "an interface name has at most 15 characters",
			[]string{"-c", pid, "abcdefghijklmnop"}},
		{"a closed ready descriptor", "descriptor 77 is not open", []string{"-c", "-r", "77", pid, "tap1"}},
		{"a closed exit descriptor", "descriptor 77 is not open", []string{"-c", "-e", "77", pid, "tap1"}},
		{"no directory for the socket", "API socket: listen unix /nowhere/sock",
			[]string{"-c", "-a", "/nowhere/sock", pid, "tap1"}},
		{"a path that is too long for a socket", "is too long: 107 bytes at most",
			[]string{"-c", "-a", "/tmp/" + strings.Repeat("x", 120), pid, "tap1"}},
		{"another user's namespace", "network namespace", []string{"-c", "1", "tap1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := d.in(t).command(usernet, append([]string{"slirp4netns"}, test.args...)...)
			if r.code != 1 || !strings.Contains(r.stderr, test.words) {
				t.Errorf("want status 1 and %q: %v", test.words, r)
			}
		})
	}
	if got := f.links(); got != "tap0" {
		t.Errorf("interfaces are left: %s", got)
	}
}

// TestSlirp4netnsSandboxHasNoCapabilities: started as root of the user namespace that owns the network, as by Podman,
// it makes the interface there by capabilities, and with --enable-sandbox has none afterwards but the one that
// slirp4netns keeps.
func TestSlirp4netnsSandboxHasNoCapabilities(t *testing.T) {
	t.Parallel()
	const bindService = "0000000000000400" // CAP_NET_BIND_SERVICE alone
	d := startDaemon(t)
	address := fmt.Sprintf("%s:%d", host4, freePort())
	listen(t, address, func(c *net.TCPConn) { c.Close() })
	f := startForeign(d)
	asRoot := []string{"nsenter", "--preserve-credentials", "--user", "--target", strconv.Itoa(f.pid)}
	p := f.slirp4netnsBy(asRoot, nil, "-c", "--enable-sandbox")
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("it has no threads: %v", err)
	}
	for _, thread := range threads {
		b, err := os.ReadFile(thread)
		if err != nil {
			continue // the thread has ended
		}
		for _, line := range strings.Split(string(b), "\n") {
			set, value, _ := strings.Cut(line, ":\t")
			if (set == "CapPrm" || set == "CapEff") && value != bindService {
				t.Errorf("%s: %s, want %s", thread, line, bindService)
			}
		}
	}
	if r := f.run(helper, "tcpdial", address); !strings.HasPrefix(r.stdout, "ok") {
		t.Errorf("nothing is forwarded: %v", r)
	}
}

// TestSlirp4netnsTenThousandPorts publishes ten thousand ports, with what is no request among them, and takes them
// back. It is alone, since those are all ports that other tests use.
func TestSlirp4netnsTenThousandPorts(t *testing.T) {
	d := startDaemon(t)
	f := startForeign(d)
	sock := filepath.Join(d.dir, "api.sock")
	p := f.slirp4netns(nil, "-c", "-a", sock, "--enable-sandbox", "--enable-seccomp")
	const first, count = 20000, 10000
	for i := range count {
		request := fmt.Sprintf(`{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"127.0.0.2","host_port":%d,"guest_port":80}}`, first+i)
		if got, want := askAPI(t, sock, request), fmt.Sprintf(`{"return":{"id":%d}}`, i+1); got != want {
			t.Fatalf("port %d: %s, want %s", first+i, got, want)
		}
		if i%1000 != 0 {
			continue
		}
		for broken, want := range map[string]string{
			`{"execute":`: "cannot parse JSON",
			`[]`:          "json_object() failed",
			"\x00\xff":    "cannot parse JSON",
			`{"execute":"add_hostfwd","arguments":{"host_port":1}}`: "bad arguments.proto",
			request:                                "slirp_add_hostfwd failed: ",
			`{"execute":"nosuch"}`:                 "unknown execute",
			strings.Repeat(" ", 5000):              "too large message",
			`{"execute":"remove_hostfwd"}`:         "bad arguments.id",
			`{"execute":1e999}`:                    "no execute found",
			`{"execute":"list_hostfwd"` + "}}}}}}": "cannot parse JSON",
		} {
			if got := askAPI(t, sock, broken); !strings.Contains(got, want) {
				t.Errorf("%.60q is answered with %.200q, want %s", broken, got, want)
			}
		}
	}
	var list struct {
		Entries []struct {
			ID int `json:"id"`
		} `json:"entries"`
	}
	if err := json.Unmarshal([]byte(askAPI(t, sock, `{"execute":"list_hostfwd"}`)), &list); err != nil || len(list.Entries) != count {
		t.Errorf("%d ports are listed, %v", len(list.Entries), err)
	}
	last := net.JoinHostPort("127.0.0.2", strconv.Itoa(first+count-1))
	defer f.serve()()
	eventually(t, func() error {
		if r := d.command(helper, "tcpdial", last); !strings.HasPrefix(r.stdout, "ok") {
			return fmt.Errorf("the last port: %v", r)
		}
		return nil
	})
	for _, id := range []int{1, count, count / 2} {
		if got := askAPI(t, sock, fmt.Sprintf(`{"execute":"remove_hostfwd","arguments":{"id":%d}}`, id)); got != `{"return":{}}` {
			t.Errorf("remove %d: %s", id, got)
		}
	}
	if c, err := net.Dial("tcp", last); err == nil {
		_ = c.Close()
		t.Error("a port that was taken back is still published")
	}
	select {
	case <-p.end:
		t.Errorf("it has ended:\n%.3000s", readFile(t, p.log))
	default:
	}
}

// TestSlirp4netnsKeepsDescriptors: ports are refused before they have all descriptors, so that the API can take them
// back.
func TestSlirp4netnsKeepsDescriptors(t *testing.T) {
	t.Parallel()
	const limit = 128
	d := startDaemon(t)
	f := startForeign(d)
	sock := filepath.Join(d.dir, "api.sock")
	f.slirp4netnsBy([]string{"prlimit", fmt.Sprintf("--nofile=%d:%d", limit, limit)}, nil, "-c", "-a", sock)
	const request = `{"execute":"add_hostfwd",` +
		`"arguments":{"proto":"tcp","host_addr":"127.0.0.3","host_port":%d,"guest_port":80}}`
	port, published := 20000, 0
	add := func() string { // of the next port that no other test has
		for ; ; port++ {
			got := askAPI(t, sock, fmt.Sprintf(request, port))
			if !strings.Contains(got, "already allocated") {
				port++
				return got
			}
		}
	}
	got := add()
	for ; published < limit && strings.Contains(got, "return"); published++ {
		got = add()
	}
	if want := fmt.Sprintf("no more than %d open files", limit); published < limit/4 || !strings.Contains(got, want) {
		t.Errorf("after %d ports: %s, want %q", published, got, want)
	}
	for id := range 8 { // more than descriptors may be on their way to being closed
		remove := fmt.Sprintf(`{"execute":"remove_hostfwd","arguments":{"id":%d}}`, id+1)
		if got := askAPI(t, sock, remove); got != `{"return":{}}` {
			t.Errorf("a port cannot be taken back: %s", got)
		}
	}
	if got := add(); !strings.Contains(got, "return") {
		t.Errorf("in their stead: %s", got)
	}
}
