package test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A place is a process of usernet in the place of a program that a runtime calls.
type place struct {
	cmd *exec.Cmd
	end chan struct{} // closed when it has ended
	log string
}

// slirp4netns starts usernet in slirp4netns's place for f, and returns when it is ready.
func (f foreign) slirp4netns(environ []string, args ...string) *place {
	f.d.t.Helper()
	return f.slirp4netnsBy(nil, environ, args...)
}

// slirp4netnsBy is slirp4netns with a command before it that becomes it, such as nsenter(1).
func (f foreign) slirp4netnsBy(prefix, environ []string, args ...string) *place {
	t := f.d.t
	t.Helper()
	ready, readyEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	p := &place{end: make(chan struct{}), log: filepath.Join(f.d.dir, fmt.Sprint("place-", freePort()))}
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	command := append(append(prefix, usernet, "slirp4netns", "-r", "3"), args...)
	command = append(command, strconv.Itoa(f.pid), "tap0")
	p.cmd = exec.Command(command[0], command[1:]...)
	p.cmd.Env = append(f.d.environ(), environ...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = log, log, []*os.File{readyEnd}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = readyEnd.Close()
	go func() {
		_ = p.cmd.Wait()
		close(p.end)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.end
	})
	if b, err := io.ReadAll(ready); err != nil || string(b) != "1" {
		t.Fatalf("it was never ready: %q, %v\n%s", b, err, readFile(t, p.log))
	}
	return p
}

// serve starts a server at port 80 of f's namespaces, and returns what ends it.
func (f foreign) serve() (end func()) {
	f.d.t.Helper()
	cmd := exec.Command("nsenter", "--preserve-credentials", "--user", "--net", "--target", strconv.Itoa(f.pid), helper,
		"tcpserve", ":80", "addr")
	if err := cmd.Start(); err != nil {
		f.d.t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// hasEnded waits until the daemon knows nothing of a container.
func (d *daemon) hasEnded(name string) {
	d.t.Helper()
	eventually(d.t, func() error {
		if left := d.ok("ps", "-aq", "--filter", "name="+name); left != "" {
			return fmt.Errorf("container %s is still there", name)
		}
		return nil
	})
}

// TestPlacesJoinNetworks has a runtime's namespace on two networks of the daemon instead of alone: neighbours, names,
// egress rules, flows, published ports, what the runtime believes to be its addresses, a new daemon, a crash of the
// daemon, and the end.
func TestPlacesJoinNetworks(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "one")
	d.ok("network", "create", "--egress", "deny", "--allow-egress", peer4+"/32", "two")
	d.serve("web", []string{"--network", "one"}, helper, "tcpserve", ":80", "addr")
	d.idle("other", "--network", "two")
	f := startForeign(d)
	sock := filepath.Join(d.dir, "api.sock")
	p := f.slirp4netns([]string{"USERNET_NETWORK=two, one", "USERNET_NAME=app"}, "-c", "--enable-sandbox",
		"--enable-seccomp", "-a", sock)

	inside := func(when string) {
		t.Helper()
		if got := f.links(); got != "tap0 eth0" {
			t.Errorf("%s, interfaces: %s", when, got)
		}
		if out := f.run("dig", "+short", "+tries=5", "@10.0.2.3", "web").stdout; strings.TrimSpace(out) != d.address(
			"web") {
			t.Errorf("%s, the name server of the plan says %q", when, out)
		}
		if r := f.run(helper, "tcpdial", d.address("web")+":80"); !strings.HasPrefix(r.stdout, "ok") {
			t.Errorf("%s, no neighbour: %v", when, r)
		}
		d.says(" 0% packet loss", "other", "ping", "-c1", "-W5", "app")
	}
	inside("at first")
	if r := f.run("ping", "-c1", "-W5", peer4); r.code != 0 {
		t.Errorf("what the network's rules allow is not reached: %v", r)
	}
	if r := f.run(helper, "tcpdial", peer4+":9"); !strings.HasPrefix(r.stdout, "ECONNREFUSED") {
		t.Errorf("a refusal outside is none inside: %v", r)
	}
	if r := f.run(helper, "tcpdial", host4+":9"); strings.HasPrefix(r.stdout, "ok") {
		t.Errorf("what the network's rules do not allow is reached: %v", r)
	}

	port := freePort()
	ask := func(request string) string {
		t.Helper()
		return askAPI(t, sock, request)
	}
	if got := ask(fmt.Sprintf(`{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"0.0.0.0","host_port":%d,"guest_addr":"10.0.2.100","guest_port":80}}`, port)); got != `{"return":{"id":1}}` {
		t.Errorf("add_hostfwd: %s", got)
	}
	if got := ask(`{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_port":1234,"guest_addr":"10.0.2.15","guest_port":80}}`); !strings.Contains(got, "not an address of the container") {
		t.Errorf("add_hostfwd for an address of nobody: %s", got)
	}
	defer f.serve()()
	published := func(when string) {
		t.Helper()
		eventually(t, func() error {
			if out := atPeer(t, fmt.Sprintf("%s tcpdial %s:%d", helper, host4, port)); !sourceIs(out, peer4) {
				return fmt.Errorf("%s, through the published port: %s", when, out)
			}
			return nil
		})
	}
	published("at first")
	// What the runtime believes to be the container's address leads to its services from inside: rootlessport connects
	// so.
	if r := f.run(helper, "tcpdial", "10.0.2.100:80"); !strings.HasPrefix(r.stdout, "ok") {
		t.Errorf("the guest's address of the plan: %v", r)
	}

	address := func() string {
		return strings.Fields(f.run("ip", "-4", "-br", "addr", "show", "tap0").stdout + " - - -")[2]
	}
	before := address()
	d.flags = append(d.flags, "--takeover")
	d.takeOver()
	inside("after a takeover")
	d.stop(syscall.SIGKILL)
	d.start()
	eventually(t, func() error {
		if out := f.run("dig", "+short", "+tries=1", "+time=1", "@10.0.2.3", "web").stdout; strings.TrimSpace(out) !=
			d.address("web") {
			return fmt.Errorf("after a crash of the daemon there is no name server: %q", out)
		}
		return nil
	})
	inside("after a crash of the daemon")
	published("after a crash of the daemon")
	if after := address(); after != before {
		t.Errorf("its address was %s and is %s", before, after)
	}

	if got := ask(`{"execute":"remove_hostfwd","arguments":{"id":1}}`); got != `{"return":{}}` {
		t.Errorf("remove_hostfwd: %s", got)
	}
	if out := d.ok("port", "app"); strings.Contains(out, strconv.Itoa(port)) {
		t.Errorf("the port is still published: %s", out)
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.end
	if !p.cmd.ProcessState.Success() {
		t.Errorf("%v:\n%s", p.cmd.ProcessState, readFile(t, p.log))
	}
	d.hasEnded("app")
	if got := f.run("ip", "-br", "addr").stdout; strings.Contains(got, "tap0") || strings.Contains(got, "10.0.2.") {
		t.Errorf("left in the namespace:\n%s", got)
	}
}

// TestPlaceOfAKilledProcessEnds: RootlessKit kills what it has called, and the daemon notices.
func TestPlaceOfAKilledProcessEnds(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	f := startForeign(d)
	p := f.slirp4netns(nil, "-c", "--usernet-network", "bridge", "--usernet-name", "app")
	_ = p.cmd.Process.Kill()
	<-p.end
	d.hasEnded("app")
	eventually(t, func() error {
		if got := f.links(); got != "" {
			return fmt.Errorf("interfaces are left: %s", got)
		}
		return nil
	})

	p = f.slirp4netns(nil, "-c", "--usernet-network=bridge", "--usernet-name=app") // and the other way round
	d.ok("detach", "app")
	eventually(t, func() error {
		select {
		case <-p.end:
			return nil
		default:
			return fmt.Errorf("it goes on after the attachment's end")
		}
	})
}

// TestPlaceJoinsBesideAnInterfaceOfTheCaller: RootlessKit makes the TAP and gives it addresses and the default route
// itself, once it is told that the network is ready. Traffic takes the daemon's networks all the same.
func TestPlaceJoinsBesideAnInterfaceOfTheCaller(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.serve("web", []string{"--network", "mynet"}, helper, "tcpserve", ":80", "addr")
	f := startForeign(d)
	inside := func(args ...string) {
		t.Helper()
		if r := f.run(args...); r.code != 0 {
			t.Fatal(r)
		}
	}
	inside("ip", "tuntap", "add", "name", "tap0", "mode", "tap")
	inside("ip", "link", "set", "tap0", "up")
	f.slirp4netns([]string{"USERNET_NETWORK=mynet", "USERNET_NAME=app"})
	inside("ip", "addr", "add", "10.0.2.100/24", "dev", "tap0")
	inside("ip", "route", "add", "default", "via", "10.0.2.2", "dev", "tap0")
	for range 2 {
		if out := f.run("dig", "+short", "+tries=5", "@10.0.2.3", "web").stdout; strings.TrimSpace(out) != d.address(
			"web") {
			t.Errorf("the name server of the plan says %q", out)
		}
		for _, target := range []string{d.address("web"), peer4} {
			if r := f.run("ping", "-c1", "-W5", target); r.code != 0 {
				t.Errorf("%s is not reached: %v", target, r)
			}
		}
		d.stop(syscall.SIGKILL)
		d.start()
		eventually(t, func() error {
			if r := f.run("ping", "-c1", "-W1", d.address("web")); r.code != 0 {
				return fmt.Errorf("after the daemon's end: %v", r)
			}
			return nil
		})
	}
}

// TestPlacesSayWhatIsMissing: no daemon, no such network, no network namespace.
func TestPlacesSayWhatIsMissing(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	f := startForeign(d)
	pid := strconv.Itoa(f.pid)
	for name, c := range map[string]struct {
		words string
		args  []string
	}{
		"no such network": {"network nosuch not found", []string{"--usernet-network=nosuch", "-c", pid, "tap0"}},
		"no daemon":       {"no usernet daemon answers at " + d.dir + "/nowhere", []string{"-c", pid, "tap0"}},
		"the host's namespace": {"network namespace",
			[]string{"--usernet-network=bridge", "-c", strconv.Itoa(os.Getpid()), "tap0"}},
		"no namespace": {"is joined by a network namespace",
			[]string{"--usernet-network=bridge", "--netns-type=tapfd", "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"USERNET_NETWORK=bridge", usernet, "slirp4netns"}, c.args...)
			if name == "no daemon" {
				args = append([]string{"USERNET_HOST=unix://" + d.dir + "/nowhere"}, args...)
			}
			if r := d.in(t).command("env", args...); r.code != 1 || !strings.Contains(r.stderr, c.words) {
				t.Errorf("want status 1 and %q: %v", c.words, r)
			}
		})
	}
	if got := f.links(); got != "" {
		t.Errorf("interfaces are left: %s", got)
	}
}

// TestPastaJoinsNetworks has pasta's place on a network of the daemon: with the ports that it is told and those that it
// follows.
func TestPastaJoinsNetworks(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.serve("web", []string{"--network", "mynet"}, helper, "tcpserve", ":80", "addr")
	f := startForeign(d)
	pid, port := strconv.Itoa(f.pid), freePort()
	pidFile := filepath.Join(d.dir, "pasta.pid")
	pasta := func(args ...string) result {
		t.Helper()
		args = append([]string{"USERNET_NETWORK=mynet", "USERNET_NAME=app", usernet, "pasta", "--config-net",
			"--dns-forward", "169.254.1.1"}, args...)
		return d.command("env", append(args, pid)...)
	}
	for words, args := range map[string][]string{
		"is for the traffic of this process":                   {"--pcap", filepath.Join(d.dir, "pcap")},
		"etwork nosuch not found":                              {"--usernet-network", "nosuch"},
		fmt.Sprintf("failed to bind port %d", port):            {"-t", fmt.Sprintf("192.0.2.77/%d:80", port)},
		"failed to bind port 80 (ports of one interface are n": {"-t", "%lo/80"},
	} {
		if r := pasta(args...); r.code != 1 || !strings.Contains(strings.ToLower(r.stderr), strings.ToLower(words)) {
			t.Errorf("want status 1 and %q: %v", words, r)
		}
		d.hasEnded("app")
	}
	if r := pasta("-t", fmt.Sprintf("%d:80", port), "-u", "auto", "-I", "net0", "--pid", pidFile, "--quiet"); r.code !=
		0 || r.stdout+r.stderr != "" {
		t.Fatal(r)
	}
	if got := f.links(); got != "net0" {
		t.Errorf("interfaces: %s", got)
	}
	if out := f.run("dig", "+short", "+tries=5", "@169.254.1.1", "web").stdout; strings.TrimSpace(out) != d.address(
		"web") {
		t.Errorf("the name server says %q", out)
	}
	if r := f.run(helper, "tcpdial", d.address("web")+":80"); !strings.HasPrefix(r.stdout, "ok") {
		t.Errorf("no neighbour: %v", r)
	}
	d.says(" 0% packet loss", "web", "ping", "-c1", "-W5", "app")
	defer f.serve()()
	eventually(t, func() error {
		if out := atPeer(t, fmt.Sprintf("%s tcpdial %s:%d", helper, host4, port)); !sourceIs(out, peer4) {
			return fmt.Errorf("through the published port: %s", out)
		}
		return nil
	})
	followed := strconv.Itoa(freePort())
	udp := exec.Command("nsenter", "--preserve-credentials", "--user", "--net", "--target", pid, helper, "udpserve",
		":"+followed)
	if err := udp.Start(); err != nil {
		t.Fatal(err)
	}
	published := func() bool { return strings.Contains(d.ok("port", "app"), followed+"/udp") }
	eventually(t, func() error {
		if !published() {
			return fmt.Errorf("the port that opened is not published: %s", d.ok("port", "app"))
		}
		return nil
	})
	_ = udp.Process.Kill()
	_ = udp.Wait()
	eventually(t, func() error {
		if published() {
			return fmt.Errorf("the port that closed is still published")
		}
		return nil
	})

	process := strings.TrimSpace(readFile(t, pidFile))
	_ = syscall.Kill(f.pid, syscall.SIGKILL)
	d.hasEnded("app")
	eventually(t, func() error {
		// one that nobody has waited for has none
		if b, err := os.ReadFile("/proc/" + process + "/environ"); err == nil && len(b) > 0 {
			return fmt.Errorf("pasta goes on after the namespace's end")
		}
		return nil
	})
}
