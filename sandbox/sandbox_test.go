package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/sockio"
)

func TestMain(m *testing.M) {
	Main() // the test binary plays the roles too
	os.Exit(m.Run())
}

// output runs a command in a sandbox and returns its output and status.
func output(t *testing.T, spec Spec, files Files, between func(*Process)) (string, int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	spec.Stdout, spec.Stderr = w, w
	if spec.Env == nil {
		spec.Env = os.Environ()
	}
	p, err := Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if between != nil {
		between(p)
	}
	err = p.Proceed(files)
	_ = w.Close()
	var exit *ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	code, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if exit != nil {
		return exit.Msg, code
	}
	return strings.TrimSpace(string(text)), code
}

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestCommandsEndWithTheirOwnStatus(t *testing.T) {
	for _, c := range []struct {
		name    string
		command []string
		code    int
		text    string
	}{
		{"success", sh("echo hello"), 0, "hello"},
		{"a number", sh("exit 42"), 42, ""},
		{"a signal", sh("kill -TERM $$"), 128 + 15, ""},
		{"an orphan is reaped", sh("(sleep 0 &) ; echo done"), 0, "done"},
		{"not found", []string{"no-such-command-here"}, 127, "executable file not found"},
		{"not found at a path", []string{"/no/such/command"}, 127, "no such file"},
		{"not executable", []string{"/etc/passwd"}, 126, "permission denied"},
		{"a directory", []string{"/etc"}, 126, "is a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, code := output(t, Spec{Command: c.command}, Files{}, nil)
			if code != c.code || !strings.Contains(text, c.text) {
				t.Fatalf("status %d, %q; want %d, %q", code, text, c.code, c.text)
			}
		})
	}
}

func TestSandboxHasItsOwnNames(t *testing.T) {
	text, code := output(t,
		Spec{Command: sh("hostname; id -u; cat /etc/hosts; echo $$; ls -d /proc/[0-9]* | wc -l"), Hostname: "other"},
		Files{Hosts: "192.0.2.7 elsewhere\n", Hostname: "chosen"}, nil)
	lines := strings.Split(text, "\n")
	if code != 0 || len(lines) != 5 || lines[0] != "chosen" || lines[1] != "0" || lines[2] != "192.0.2.7 elsewhere" {
		t.Fatalf("%d %q", code, text)
	}
	if len(lines[4]) > 1 {
		t.Fatalf("/proc shows %s processes: it is not the sandbox's own", lines[4])
	}
}

func TestUserIsTheOneAskedFor(t *testing.T) {
	if text, code := output(t, Spec{Command: sh("id -u; id -g"), User: "1234:5678"}, Files{}, nil); code != 0 ||
		text != "1234\n5678" {
		t.Fatalf("%d %q", code, text)
	}
}

func TestDescriptorsDoNotLeakIntoTheCommand(t *testing.T) {
	if text, code := output(t, Spec{Command: sh("ls /proc/self/fd | wc -l")}, Files{}, nil); code != 0 || text != "4" {
		// 0, 1, 2 and that of the directory
		t.Fatalf("%d: %s descriptors", code, text)
	}
}

func TestTerminalReachesTheCommand(t *testing.T) {
	p, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	pr, err := Start(t.Context(),
		Spec{Command: sh("tty; test -t 0 && echo terminal"), Env: os.Environ(), TTY: true, Stdout: w})
	if err != nil {
		t.Fatal(err)
	}
	if err := pr.Proceed(Files{}); err != nil {
		t.Fatal(err)
	}
	code, err := pr.Wait()
	_ = w.Close()
	text, _ := io.ReadAll(p)
	if err != nil || code != 0 || !bytes.Contains(text, []byte("terminal")) ||
		!bytes.Contains(text, []byte("/dev/pts/")) {
		t.Fatalf("%d %v %q", code, err, text)
	}
}

func TestConfigureSetsUpTheNetwork(t *testing.T) {
	var reply *Reply
	text, code := output(
		t,
		Spec{Command: sh("ip -o addr show eth0; ip route; ip -o link show lo")},
		Files{},
		func(p *Process) {
			var err error
			reply, err = (*Helper)(nil).Configure(t.Context(), Target{Pid: p.Pid()}, Request{
				Add: []Interface{{
					Name:    "eth0",
					MAC:     net.HardwareAddr{2, 0x42, 10, 1, 0, 2},
					MTU:     1400,
					Offload: true,
					IPv6:    true,
					Addrs:   []netip.Prefix{netip.MustParsePrefix("10.1.0.2/16"), netip.MustParsePrefix("fd00::2/64")},
				}},
				DefaultRoutes: []Route{
					{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.1.0.1"), Interface: "eth0"},
				},
				DNSStub: netip.MustParseAddrPort("127.0.0.11:53"),
			})
			if err != nil {
				t.Fatal(err)
			}
		},
	)
	defer reply.close()
	for _, want := range []string{"10.1.0.2/16", "fd00::2/64", "default via 10.1.0.1", "LOOPBACK,UP"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if code != 0 || reply.TAPs["eth0"] == nil || !strings.HasPrefix(reply.DNSPacket.LocalAddr().String(),
		"127.0.0.11:") ||
		reply.DNSListener.Addr().String() != reply.DNSPacket.LocalAddr().String() {
		t.Fatalf("%d %+v", code, reply)
	}
}

// TestSetUpGoesOnBesideTheNetwork sets up sandboxes while their namespaces are looked for, as by a daemon that makes
// their networks meanwhile.
func TestSetUpGoesOnBesideTheNetwork(t *testing.T) {
	files := Files{ResolvConf: "nameserver 127.0.0.11\n", Hosts: "127.0.0.1\tlocalhost\n", Hostname: "chosen"}
	for range 10 {
		spec := Spec{Command: sh("hostname; cat /etc/hosts; echo $A; ls -d /proc/hosts /proc/self")}
		text, code := output(t, spec, files,
			func(p *Process) {
				done := make(chan error, 1)
				later := spec
				later.Env = append(os.Environ(), "A=later")
				go func() { done <- p.SetUp(later, files.Hostname) }()
				path := fmt.Sprintf("/proc/%d/ns/net", p.Pid())
				for ended := false; !ended; {
					if _, err := os.Readlink(path); err != nil {
						t.Errorf("the namespace cannot be found: %v", err)
					}
					select {
					case err := <-done:
						ended = true
						if err != nil {
							t.Error(err)
						}
					default:
					}
				}
			})
		if want := "chosen\n127.0.0.1\tlocalhost\nlater\n"; !strings.HasPrefix(text, want) || code == 0 ||
			!strings.Contains(text, "'/proc/hosts'") || !strings.HasSuffix(text, "/proc/self") {
			t.Fatalf("%d %q", code, text)
		}
	}
}

func TestConfigureUndoesWhatItBegan(t *testing.T) {
	text, _ := output(t, Spec{Command: sh("ip -o link")}, Files{}, func(p *Process) {
		_, err := (*Helper)(nil).Configure(t.Context(), Target{Pid: p.Pid()}, Request{
			Add: []Interface{
				{
					Name:    "eth0",
					MAC:     net.HardwareAddr{2, 0, 0, 0, 0, 2},
					MTU:     1500,
					Offload: true,
					Addrs:   []netip.Prefix{netip.MustParsePrefix("10.1.0.2/16")},
				},
			},
			DefaultRoutes: []Route{
				{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Interface: "eth0"},
			},
		})
		if err == nil || !strings.Contains(err.Error(), "default route via 192.0.2.1") {
			t.Errorf("a route through nowhere: %v", err)
		}
	})
	if strings.Contains(text, "eth0") {
		t.Fatalf("the interface is still there:\n%s", text)
	}
}

func TestSharedNetworkIsTheOwners(t *testing.T) {
	owner, err := Start(t.Context(), Spec{Command: []string{"sleep", "1000"}, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Kill()
	if err := owner.Proceed(Files{}); err != nil {
		t.Fatal(err)
	}
	want, err := os.Readlink("/proc/" + strconv.Itoa(owner.Pid()) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	text, code := output(t, Spec{Command: sh("readlink /proc/self/ns/net; exit 3"), JoinNet: &Target{Pid: owner.Pid()}},
		Files{}, nil)
	if text != want || code != 3 {
		t.Fatalf("status %d; in %q, the owner in %q", code, text, want)
	}
}

func TestWaitNoticesTheEndAndOtherProcessesOfThePid(t *testing.T) {
	p, err := Start(t.Context(), Spec{Command: []string{"sleep", "1000"}, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	start, err := StartTime(p.Pid())
	if err != nil || !Alive(p.Pid(), start) || Alive(p.Pid(), start+1) {
		t.Fatalf("start %d, %v", start, err)
	}
	if err := Wait(t.Context(), p.Pid(), start+1); err != nil {
		t.Fatalf("another process of that pid: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := Wait(short, p.Pid(), start); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a living process: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- Wait(t.Context(), p.Pid(), start) }()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	p.Kill()
}

// TestCongestionControlIsOfPathsWithinTheMachine: that of the namespace is replaced where it is the machine's and there
// is nothing but what was made, and comes back where packets go further.
func TestCongestionControlIsOfPathsWithinTheMachine(t *testing.T) {
	owner, err := Start(t.Context(), Spec{Command: []string{"sleep", "1000"}, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Kill()
	if err := owner.Proceed(Files{}); err != nil {
		t.Fatal(err)
	}
	now := func() string {
		text, _ := output(t, Spec{
			Command: sh("cat /proc/sys/net/ipv4/tcp_congestion_control"),
			JoinNet: &Target{Pid: owner.Pid()},
		}, Files{}, nil)
		return text
	}
	other := now()
	if other == sockio.LocalCongestion {
		t.Skip("the machine's is the one that it would get")
	}
	outside := []string{"wan0", "eth0", "eth1"}
	for i, step := range []struct {
		name       string
		remove     []string
		congestion Congestion
		want       string
	}{
		{"wan0", nil, Congestion{Host: other}, other},
		{"eth0", nil, Congestion{}, other},
		{"eth0", nil, Congestion{Host: other, Local: true}, other}, // it was there before
		{"eth1", nil, Congestion{Host: other, Local: true}, other}, // others were
		{"eth2", outside, Congestion{Host: other, Local: true}, sockio.LocalCongestion},
		{"eth2", nil, Congestion{Host: other, Local: true}, sockio.LocalCongestion},
		{"eth2", []string{"eth2"}, Congestion{Host: other}, other},
		{"eth2", []string{"eth2"}, Congestion{Host: "another", Local: true}, other}, // it is not the machine's
	} {
		reply, err := (*Helper)(nil).Configure(t.Context(), Target{Pid: owner.Pid()}, Request{
			Remove:     step.remove,
			Add:        []Interface{{Name: step.name, MTU: 1500}},
			Congestion: step.congestion,
		})
		if err != nil {
			t.Fatal(err)
		}
		reply.close()
		if got := now(); got != step.want {
			t.Fatalf("step %d, %s: %s, want %s", i, step.name, got, step.want)
		}
	}
}
