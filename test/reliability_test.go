package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A held is a connection that a container keeps open.
type held struct {
	t     testing.TB
	name  string
	in    io.WriteCloser
	lines chan string
	cmd   *exec.Cmd
}

// hold has a container connect to address and keep the connection until the test ends.
func (d *daemon) hold(name, address string) *held {
	d.t.Helper()
	return d.talk(name, "tcphold", address, "stdin")
}

// talk starts a helper in a container that says "ok" when it has begun, reads lines, and ends with its standard input.
func (d *daemon) talk(name string, args ...string) *held {
	d.t.Helper()
	return d.talkTo(name+": "+strings.Join(args, " "),
		append([]string{usernet, "exec", "-i", name, helper}, args...)...)
}

// talkTo is talk with any command.
func (d *daemon) talkTo(name string, command ...string) *held {
	d.t.Helper()
	h := d.startTalk(name, command...)
	h.wants("ok")
	return h
}

// starts is talk with another first line than "ok".
func (d *daemon) starts(line, name string, args ...string) *held {
	d.t.Helper()
	h := d.startTalk(name+": "+strings.Join(args, " "),
		append([]string{usernet, "exec", "-i", name, helper}, args...)...)
	h.wants(line)
	return h
}

func (d *daemon) startTalk(name string, command ...string) *held {
	d.t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = d.environ()
	in, err := cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	h := &held{t: d.t, name: name, in: in, lines: make(chan string, 100), cmd: cmd}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			h.lines <- s.Text()
		}
		close(h.lines)
	}()
	d.t.Cleanup(func() {
		in.Close() // it ends by itself: killed, its child would be left to a parent that does not wait for it
		cmd.Wait()
	})
	return h
}

// next is the next line that comes over the connection, or that says how it ended.
func (h *held) next() string {
	h.t.Helper()
	select {
	case line := <-h.lines:
		return line
	case <-time.After(patience):
		h.t.Fatalf("%s: silence", h.name)
		return ""
	}
}

func (h *held) wants(line string) {
	h.t.Helper()
	if got := h.next(); got != line {
		h.t.Fatalf("%s: got %q, wanted %q", h.name, got, line)
	}
}

// echoes sends a line and wants it back.
func (h *held) echoes(line string) {
	h.t.Helper()
	if _, err := io.WriteString(h.in, line+"\n"); err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
	h.wants(line)
}

// load keeps containers and the host busy until stop is called; what fails in it while the daemon is away is not
// counted.
func (d *daemon) load(name string, port int, stop <-chan struct{}) *sync.WaitGroup {
	var group sync.WaitGroup
	again := func(args ...string) {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				cmd := exec.Command(args[0], args[1:]...)
				cmd.Env = d.environ()
				cmd.Run()
			}
		}()
	}
	again(usernet, "exec", name, "timeout", "3", helper, "tcpsend", fmt.Sprintf("%s:%d", host4, port), "5000000")
	again(usernet, "network", "ls")
	return &group
}

// TestEverythingComesBackAfterAKill kills the daemon under load, several times, and looks at everything that it served.
func TestEverythingComesBackAfterAKill(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	port, sink, mirror := freePort(), freePort(), freePort()
	server := exec.Command(helper, "tcpserve", fmt.Sprintf("%s:%d", host4, sink), "digest")
	startAndWaitFor(t, server, "listening\n")
	listen(t, fmt.Sprintf("%s:%d", host4, mirror), echo)
	d.ok("network", "create", "--ipv6", "mynet")
	d.serve("web", []string{"--network", "mynet", "--network-alias", "www", "-p", fmt.Sprintf("%d:80", port), "-p",
		"80", "-P", "--expose", "81"}, helper, "tcpserve", ":80", "echo")
	d.idle("client", "--network", "mynet")
	d.idle("busy", "--network", "mynet")
	d.idle("bystander")
	before, ports := d.ok("network", "inspect", "mynet"), d.ok("port", "web")
	addresses := func() string {
		return strings.Join([]string{d.address("web"), d.address6("web"), d.mac("web"), d.address("client"),
			d.address("bystander")}, " ")
	}
	had := addresses()

	published := net.JoinHostPort(host4, strconv.Itoa(port))
	for round := range 3 {
		inside := d.hold("client", "www:80")
		inside.echoes("before")
		speaks := d.hold("client", fmt.Sprintf("%s:%d", host4, mirror))
		speaks.echoes("before")
		listens := d.hold("client", fmt.Sprintf("%s:%d", host4, mirror))
		outside, err := net.Dial("tcp", published)
		if err != nil {
			t.Fatal(err)
		}
		defer outside.Close()
		stop := make(chan struct{})
		group := d.load("busy", sink, stop)

		if code := d.stop(syscall.SIGKILL); code != -1 {
			t.Errorf("killed, the daemon ended with %d", code)
		}
		// Inside the network nothing needs the daemon's memory: what is sent now arrives when frames flow again.
		if _, err := io.WriteString(inside.in, "while it was away\n"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		d.start()
		eventually(t, func() error {
			c, err := net.Dial("tcp", published)
			if err != nil {
				return fmt.Errorf("the published port: %w", err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			line := "through the port\n"
			io.WriteString(c, line)
			got := make([]byte, len(line))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != line {
				return fmt.Errorf("the published port: %q, %w", got, err)
			}
			return nil
		})
		t.Logf("round %d: published port, name and address served again %v after the start", round, time.Since(start).Round(time.Millisecond))
		inside.wants("while it was away")
		inside.echoes("after")
		t.Logf("round %d: connection between containers carries on %v after the start", round, time.Since(start).Round(time.Millisecond))
		if got := listens.next(); got != "ECONNRESET" {
			t.Errorf("an idle connection through the gateway ended with %q", got)
		}
		t.Logf("round %d: idle connection through the gateway was reset within %v", round, time.Since(start).Round(time.Millisecond))
		io.WriteString(speaks.in, "after\n")
		if got := speaks.next(); got != "ECONNRESET" && got != "EPIPE" {
			t.Errorf("a connection through the gateway ended with %q", got)
		}
		if _, err := outside.Read(make([]byte, 1)); err == nil {
			t.Error("a published connection of the dead daemon said something")
		}
		close(stop)
		group.Wait()
		if got := d.ok("port", "web"); got != ports {
			t.Errorf("published were\n%s\nare\n%s", ports, got)
		}
		if got := addresses(); got != had {
			t.Errorf("addresses were %s, are %s", had, got)
		}
		if after := d.ok("network", "inspect", "mynet"); after != before {
			t.Errorf("the network was\n%s\nis\n%s", before, after)
		}
		for _, name := range []string{"web", "www"} {
			d.says("ok", "client", helper, "tcpdial", name+":80", "5s")
		}
		d.says("same 1000000", "client", helper, "tcpsend", fmt.Sprintf("%s:%d", host4, sink), "1000000")
		d.says(" 0% packet loss", "bystander", "ping", "-c1", "-W5", d.gateway("bystander"))
	}
}

// TestContainerThatDiedWhileTheDaemonWasAway is noticed at the start, and what it held is free.
func TestContainerThatDiedWhileTheDaemonWasAway(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	d.idle("victim", "-p", fmt.Sprintf("%d:80", port))
	d.idle("survivor")
	address, pid := d.address("victim"), d.pid("victim")
	d.stop(syscall.SIGKILL)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if syscall.Kill(pid, 0) == nil {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	})
	d.start()
	if out := d.ok("ps", "-a"); !strings.Contains(out, "Exited (137)") {
		t.Errorf("ps: %s", out)
	}
	d.idle("next", "-p", fmt.Sprintf("%d:80", port))
	if got := d.address("next"); got != address {
		t.Errorf("the next container has %s, not %s", got, address)
	}
	if r := d.exec("survivor", "ping", "-c1", "-W5", address); r.code != 0 {
		t.Errorf("the survivor does not reach the next container: %v", r)
	}
}

// TestManyKilledContainersFreeEverything kills containers as the kernel's OOM killer would.
func TestManyKilledContainersFreeEverything(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	const count = 10
	port := freePort()
	d.ok("network", "create", "--subnet", "10.88.0.0/28", "small") // room for 13 containers
	for round := range 3 {
		for i := range count {
			d.idle(fmt.Sprintf("box%d-%d", round, i), "--network", "small", "-p", fmt.Sprintf("%d:80", port+i%10))
		}
		for i := range count {
			if err := syscall.Kill(d.pid(fmt.Sprintf("box%d-%d", round, i)), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, func() error {
			if out := d.ok("ps", "-q"); out != "" {
				return fmt.Errorf("still running: %s", strconv.Quote(out))
			}
			return nil
		})
	}
	if out := d.ok("network", "inspect", "small"); strings.Contains(out, "10.88.0.2/") {
		t.Errorf("an endpoint is left: %s", out)
	}
	d.ok("network", "rm", "small")
}
