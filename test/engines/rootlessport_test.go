package engines

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// publishesBridge holds ports of bridge networks: both protocols and families, the client's address, other networks,
// the end.
func (p *podman) publishesBridge() {
	t := p.t
	t.Helper()
	original := os.Getenv("USERNET_ENGINES_ROOTLESSPORT") != ""
	p.ok("podman", "network", "create", "lan")
	p.ok("podman", "network", "create", "other")
	p.ok("podman", "run", "-d", "--name", "web", "--network", "lan", "-p", "18500:80", "-p", "18501-18502:81-82", "-p",
		"127.0.0.1:18503:83/udp",
		"-p", "18504:84/udp", "bb:1", "sh", "-c", "helper udpserve :83 & helper udpserve :84 addr & helper tcpserve :81 addr & helper tcpserve :82 & exec httpd -f -v -p 80 -h /var/www")
	for _, url := range []string{"http://127.0.0.1:18500/", "http://192.0.2.2:18500/"} {
		eventually(t, func() error { return says(url, "container\n") })
	}
	if !original {
		eventually(t, func() error { return says("http://[::1]:18500/", "container\n") })
	}
	eventually(t, func() error { return echoes("127.0.0.1:18503") })
	// The services start one after another.
	for network, address := range map[string]string{"tcp": "192.0.2.2:18501", "udp": "192.0.2.2:18504"} {
		eventually(t, func() error {
			seen := fromOutside(t, network, address)
			if strings.HasPrefix(seen, "192.0.2.1:") || original && seen != "" {
				return nil
			}
			return fmt.Errorf("%s: the service sees a client at %q", network, seen)
		})
	}
	eventually(t, func() error { return echoesOver("tcp", "192.0.2.2:18502") })
	// A stream of some size arrives as it was sent.
	stream(t, "192.0.2.2:18502", 8<<20)

	p.ok("podman", "network", "connect", "other", "web")
	p.ok("podman", "network", "disconnect", "lan", "web")
	eventually(t, func() error { return says("http://192.0.2.2:18500/", "container\n") })
	p.ok("podman", "restart", "--time", "0", "web")
	eventually(t, func() error { return says("http://127.0.0.1:18500/", "container\n") })

	if r := p.try("podman", "run", "--rm", "--network", "lan", "-p", "18500:80", "bb:1", "true"); r.code != 126 ||
		!strings.Contains(r.stderr, "18500: bind: address already in use") {
		t.Errorf("a port that is taken: %v", r)
	}
	if r := p.try("podman", "run", "--rm", "--network", "lan", "-p", "192.0.2.77:18509:80", "bb:1", "true"); r.code !=
		126 || !strings.Contains(r.stderr, "192.0.2.77:18509: bind: cannot assign") {
		t.Errorf("an address that is not the host's: %v", r)
	}
	p.ok("podman", "rm", "--force", "--time", "0", "web")
	for _, port := range []int{18500, 18501} {
		eventually(t, func() error { return refuses(fmt.Sprintf("127.0.0.1:%d", port)) })
	}
}

// fromOutside has the machine outside connect, and returns what it is told.
func fromOutside(t testing.TB, network, address string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", "192.0.2.1:7002", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "%s %s %s\n", network, host, port); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// stream has bytes echoed and compares them.
func stream(t testing.TB, address string, size int) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := make([]byte, size)
	for i := range sent {
		sent[i] = byte(i * 7 >> 3)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		if err == nil {
			err = c.(*net.TCPConn).CloseWrite()
		}
		done <- err
	}()
	got, err := io.ReadAll(c)
	if e := <-done; e != nil || err != nil || string(got) != string(sent) {
		t.Errorf("%d of %d bytes came back: %v, %v", len(got), size, e, err)
	}
}

// newBridgePodman is Podman with rootlessport's place taken.
func newBridgePodman(t testing.TB) *podman {
	t.Helper()
	bin := helpers(t, map[string]string{"rootlessport": rootlessport, "pasta": pasta})
	return configurePodman(t, "crun", fmt.Sprintf("network_cmd_path=%q\nhelper_binaries_dir=[%q, \"/usr/libexec/podman\", \"/usr/lib/podman\", \"/usr/bin\"]\n",
		slirp4netns, bin))
}

// TestRootlessportUnderPodman: Podman 4.
func TestRootlessportUnderPodman(t *testing.T) { newBridgePodman(t).publishesBridge() }

// TestPodman5Rootlessport: the same with Podman 5.
func TestPodman5Rootlessport(t *testing.T) { newBridgePodman(t).publishesBridge() }

// TestRootlessportBesideSlirp4netns: the client's address is kept there too, with Podman's default port handler.
func TestRootlessportBesideSlirp4netns(t *testing.T) {
	p := newBridgePodman(t)
	for i, args := range []string{"", "--userns=keep-id --user=0"} {
		port := 18510 + 2*i
		all := append([]string{"run", "-d", "--network", "slirp4netns", "-p", fmt.Sprintf("%d:8080", port), "-p",
			fmt.Sprintf("%d:81/udp", port+1)}, strings.Fields(args)...)
		id := p.ok("podman", append(all, "bb:1", "sh", "-c", "helper udpserve :81 addr & exec helper tcpserve :8080 addr")...)
		for network, address := range map[string]string{"tcp": fmt.Sprintf("192.0.2.2:%d", port),
			"udp": fmt.Sprintf("192.0.2.2:%d", port+1)} {
			eventually(t, func() error {
				seen := fromOutside(t, network, address)
				if os.Getenv("USERNET_ENGINES_ROOTLESSPORT") != "" && seen != "" ||
					strings.HasPrefix(seen, "192.0.2.1:") {
					return nil
				}
				return fmt.Errorf("%s %s: the service sees %q: %v", args, network, seen, p.try("podman", "logs", id))
			})
		}
	}
}

// TestRootlessportFails with the status and the stream that Podman reads.
func TestRootlessportFails(t *testing.T) {
	u := newUser(t)
	for name, c := range map[string]struct {
		config any
		args   []string
		want   string
	}{
		"an argument":        {nil, []string{"x"}, "too many arguments"},
		"no JSON":            {"{", nil, "cannot unmarshal"},
		"nothing":            {map[string]any{}, nil, "missing NetNSPath"},
		"no exit descriptor": {map[string]any{"NetNSPath": "/x"}, nil, "missing ExitFD"},
		"closed descriptors": {map[string]any{"NetNSPath": "/x", "ExitFD": 40, "ReadyFD": 41}, nil,
			"descriptor 40 is not open"},
		"a namespace that is gone": {map[string]any{"NetNSPath": "/nowhere/ns", "ExitFD": 1, "ReadyFD": 2}, nil,
			"no such file"},
		"a protocol": {mapping("sctp", 80, 18520), nil, "sctp"},
		"a port":     {mapping("tcp", 80, 0), nil, "invalid port mapping"},
	} {
		b, err := json.Marshal(c.config)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(rootlessport, c.args...)
		cmd.Stdin, cmd.Env = strings.NewReader(string(b)), u.environ
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: status %d, %q does not say %q (%v)", name, code, out, c.want, err)
		}
	}
}

func mapping(proto string, container, host int) map[string]any {
	return map[string]any{"NetNSPath": "/nowhere/ns", "ExitFD": 1, "ReadyFD": 2, "Mappings": []any{
		map[string]any{"container_port": container, "host_port": host, "range": 1, "protocol": proto},
	}}
}

// TestRootlessportByHand: descriptors, socket and end as Podman has them, in a namespace of the test's.
func TestRootlessportByHand(t *testing.T) {
	u := newUser(t)
	script := fmt.Sprintf("ip link set lo up; ip addr add 10.89.0.5/24 dev lo; %s tcpserve 10.89.0.5:80 addr >/dev/null & exec sleep 600", helper)
	inner := filepath.Join(u.dir, "inner.sh")
	if err := os.WriteFile(inner, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	pause := exec.Command("unshare", "--user", "--map-root-user", "--mount", "sleep", "600")
	pause.Env = u.environ
	if err := pause.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = pause.Process.Kill()
		_ = pause.Wait()
	})
	enter := []string{"--preserve-credentials", "--user", "--mount", "--target", strconv.Itoa(pause.Process.Pid), "--"}
	eventually(t, func() error { return exec.Command("nsenter", append(enter, "true")...).Run() })
	box := exec.Command("nsenter", append(enter, "unshare", "--net", "sh", inner)...)
	box.Env, box.Dir = u.environ, u.dir
	box.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the server is in its group, too
	if err := box.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-box.Process.Pid, syscall.SIGKILL)
		_ = box.Wait()
	})
	exitR, exitW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	readyR, readyW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{"Mappings":[{"host_ip":"127.0.0.1","container_port":80,"host_port":18530,"range":1,"protocol":"tcp"}],
"NetNSPath":%q,"ExitFD":3,"ReadyFD":4,"TmpDir":%q,"ChildIP":"10.89.0.5","ContainerID":"abc","RootlessCNI":true}`,
		filepath.Join("/proc", strconv.Itoa(box.Process.Pid), "ns/net"), u.dir)
	cmd := exec.Command("nsenter", append(enter, rootlessport)...)
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.ExtraFiles = u.environ, u.dir, strings.NewReader(config), []*os.File{exitR, readyW}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	eventually(t, func() error { // the namespace is there
		own, _ := os.Readlink("/proc/self/ns/net")
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", box.Process.Pid))
		if err == nil && own == theirs {
			err = fmt.Errorf("no namespace yet")
		}
		return err
	})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exitR.Close()
	readyW.Close()
	b := make([]byte, 16)
	if n, err := readyR.Read(b); err != nil || string(b[:n]) != "1" {
		_ = cmd.Wait()
		t.Fatalf("not ready: %q, %v, %s", b[:n], err, out.String())
	}
	ask := func() string {
		c, err := net.Dial("tcp", "127.0.0.1:18530")
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		text, _ := io.ReadAll(c)
		return string(text)
	}
	eventually(t, func() error {
		if s := ask(); !strings.HasPrefix(s, "10.89.0.5:") {
			return fmt.Errorf("the host's own connection is seen as %q", s)
		}
		return nil
	})
	reload := func(what string) string {
		c, err := net.Dial("unixpacket", filepath.Join(u.dir, "rp/abc"))
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		_, _ = io.WriteString(c, what)
		n, _ := c.Read(b)
		return string(b[:n])
	}
	if s := reload(`"10.89.0.6"`); s != "OK" {
		t.Errorf("another address: %q", s)
	}
	if s := ask(); strings.Contains(s, "10.89.0.5") {
		t.Errorf("connections go to the old address: %q", s)
	}
	if s := reload(`{`); s == "OK" {
		t.Error("what is no address was taken")
	}
	if s := reload(`"10.89.0.5"`); s != "OK" || !strings.HasPrefix(ask(), "10.89.0.5:") {
		t.Errorf("back: %q, %q", s, ask())
	}
	exitW.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the end: %v, %s", err, out.String())
	}
	if err := refuses("127.0.0.1:18530"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(u.dir, "rp/abc")); err == nil {
		t.Error("the socket is left behind")
	}
}
