package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestTakeover has one daemon after the other take the place of the last, while clients connect to published ports and
// to the API all the time.
func TestTakeover(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	port, free := freePort(), freePort()
	published := net.JoinHostPort(host4, strconv.Itoa(port))
	d.ok("network", "create", "--ipv6", "mynet")
	d.serve("web", []string{"--network", "mynet", "-p", fmt.Sprintf("%d:80", port), "-p",
		fmt.Sprintf("127.0.0.1:%d:80", free), "-p", fmt.Sprintf("%d:53/udp", port), "-p", "81"},
		helper, "tcpserve", ":80", "echo")
	d.idle("client", "--network", "mynet")
	ports := d.ok("port", "web")
	inside := d.hold("client", "web:80")
	inside.echoes("before")

	var connected, refused, broken, unanswered atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, err := net.DialTimeout("tcp", published, patience)
			if err != nil {
				if errors.Is(err, syscall.ECONNREFUSED) {
					refused.Add(1)
				}
				broken.Add(1)
				continue
			}
			connected.Add(1)
			c.SetDeadline(time.Now().Add(patience))
			got := make([]byte, 5)
			if _, err := io.WriteString(c, "hello"); err != nil {
				broken.Add(1)
			} else if _, err := io.ReadFull(c, got); err != nil {
				broken.Add(1) // it was on its way through the old daemon
			}
			c.Close()
		}
	})
	clients.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, err := net.Dial("unix", d.socket)
			if err != nil {
				unanswered.Add(1)
				continue
			}
			c.SetDeadline(time.Now().Add(patience))
			io.WriteString(c, "GET /_ping HTTP/1.1\r\nHost: usernet\r\nConnection: close\r\n\r\n")
			io.Copy(io.Discard, c) // waits for its turn; what the old daemon had accepted it may not answer any more
			c.Close()
		}
	})

	const rounds = 3
	d.flags = append(d.flags, "--takeover")
	for range rounds {
		start := time.Now()
		d.takeOver()
		inside.echoes("after")
		t.Logf("taken over in %v", time.Since(start).Round(time.Millisecond))
		if got := d.ok("port", "web"); got != ports {
			t.Errorf("published were\n%s\nare\n%s", ports, got)
		}
	}
	close(stop)
	clients.Wait()
	if refused.Load() > 0 || unanswered.Load() > 0 {
		t.Errorf("of %d connections to the port %d were refused; to the API %d", connected.Load(), refused.Load(), unanswered.Load())
	}
	t.Logf("%d takeovers: %d connections to a published port, none refused, %d broken off within", rounds, connected.Load(), broken.Load())
	// There is one connection at a time, so that each takeover breaks off one at most, where the gateway had it.
	if n := broken.Load(); n > rounds {
		t.Errorf("%d connections were broken off by %d takeovers", n, rounds)
	}
}

// TestCommandsWaitOnWithTheNextDaemon has commands that wait go on when another daemon takes the place of the one that
// they asked.
func TestCommandsWaitOnWithTheNextDaemon(t *testing.T) {
	d := startDaemon(t)
	d.container("box", nil, "sh", "-c",
		"echo ready; while ! test -e "+d.dir+"/go; do sleep 0.05; done; echo end; exit 3")
	d.logged("box", "ready")
	results := make(chan result, 2)
	for _, args := range [][]string{{"wait", "box"}, {"logs", "-f", "box"}} {
		go func() { results <- d.in(t).try(args...) }()
	}
	eventually(t, func() error {
		out := d.command("ss", "-xH", "state", "connected").stdout
		if !strings.Contains(out, d.socket) {
			return errors.New("nobody waits yet")
		}
		return nil
	})
	d.flags = append(d.flags, "--takeover")
	d.takeOver()
	d.write("go", "")
	for range 2 {
		r := <-results
		if want := map[string]string{"wait": "3\n", "logs": "ready\nend\n"}[r.args[1]]; r.code != 0 || r.stdout !=
			want {
			t.Errorf("wanted %q: %v", want, r)
		}
	}
}

// TestTakeoverOfNobody is a plain start.
func TestTakeoverOfNobody(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "--takeover")
	d.idle("box")
	d.says(" 0% packet loss", "box", "ping", "-c1", "-W5", d.gateway("box"))
}

// TestTakeoverKeepsConnections has connections through the host go on, quiet ones and such as move what they can, when
// one daemon after the other takes the place of the last.
func TestTakeoverKeepsConnections(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	port, sink := freePort(), freePort()
	d.ok("network", "create", "--ipv6", "dual")
	d.idle("box", "--network", "dual")
	d.serve("web", []string{"--network", "dual", "-p", fmt.Sprintf("%d:80", port), "-p", fmt.Sprintf("%d:81", sink)},
		"sh", "-c", fmt.Sprintf("%[1]s tcpserve :81 digest & %[1]s tcpserve :80 echo", helper))
	d.makeDirect(fmt.Sprintf("127.0.0.1:%d", port))
	startAtPeer(t, fmt.Sprintf("%s tcpserve :%d echo", helper, port))
	startAtPeer(t, fmt.Sprintf("%s tcpserve :%d digest", helper, sink))

	// All of them go over the bypass, which connections of a busy machine need not; those by the gateway end with its
	// daemon.
	connect := func(connect func() *held) *held { return d.pastTheGateway(connect) }
	quiet := []*held{
		connect(func() *held { return d.hold("box", fmt.Sprintf("%s:%d", peer4, port)) }),
		connect(func() *held { return d.hold("box", fmt.Sprintf("[%s]:%d", peer6, port)) }),
		connect(func() *held { return d.talkTo("in", helper, "tcphold", fmt.Sprintf("127.0.0.1:%d", port), "stdin") }),
		connect(func() *held {
			return d.talkTo("in, IPv6", helper, "tcphold", fmt.Sprintf("[::1]:%d", port),
				"stdin")
		}),
	}
	busy := []*held{
		connect(func() *held { return d.talk("box", "tcpsend", fmt.Sprintf("%s:%d", peer4, sink), "stdin") }),
		connect(func() *held {
			return d.talkTo("busy in", helper, "tcpsend", fmt.Sprintf("127.0.0.1:%d", sink), "stdin")
		}),
	}
	for _, h := range quiet {
		h.echoes("before")
	}
	d.flags = append(d.flags, "--takeover")
	for range 4 {
		before := d.flowsOf(bypassPath)
		d.takeOver()
		if after := d.flowsOf(bypassPath); after != before {
			t.Errorf("%d connections over the bypass were %d before", after, before)
		}
		for _, h := range quiet {
			h.echoes("after")
		}
	}
	for _, h := range busy {
		io.WriteString(h.in, "\n")
		line := h.next()
		t.Logf("%s: %s", h.name, line)
		if !strings.HasPrefix(line, "same ") {
			t.Errorf("%s: %q", h.name, line)
		}
	}
	for _, h := range quiet {
		h.in.Close()
	}
	eventually(t, func() error {
		if n := d.flowsOf(bypassPath); n > 0 {
			return fmt.Errorf("%d flows are left", n)
		}
		return nil
	})
}

// flowsOf counts the TCP connections that take a path.
func (d *daemon) flowsOf(path string) (n int) {
	d.t.Helper()
	for _, f := range d.tcpFlows("") {
		if f.Path == path {
			n++
		}
	}
	return n
}
