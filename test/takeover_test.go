package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestTakeover has one daemon after the other take the place of the last, while clients connect to published ports and to
// the API all the time.
func TestTakeover(t *testing.T) {
	d := newDaemon(t)
	d.start()
	port, free := freePort(), freePort()
	published := net.JoinHostPort(host4, strconv.Itoa(port))
	d.ok("network", "create", "--ipv6", "mynet")
	d.serve("web", []string{"--network", "mynet", "-p", fmt.Sprintf("%d:80", port), "-p", fmt.Sprintf("127.0.0.1:%d:80", free), "-p", fmt.Sprintf("%d:53/udp", port), "-p", "81"},
		helper, "tcpserve", ":80", "echo")
	d.idle("client", "--network", "mynet")
	ports := d.ok("port", "web")
	inside := d.hold("client", "web:80")
	inside.echoes("before")

	var connected, refused, broken, unanswered atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
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
	}()
	go func() {
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
	}()

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
	<-done
	if refused.Load() > 0 || unanswered.Load() > 0 {
		t.Errorf("of %d connections to the port %d were refused; to the API %d", connected.Load(), refused.Load(), unanswered.Load())
	}
	t.Logf("%d takeovers: %d connections to a published port, none refused, %d broken off within", rounds, connected.Load(), broken.Load())
	if n := broken.Load(); n > 2*rounds {
		t.Errorf("%d connections were broken off by %d takeovers", n, rounds)
	}
}

// TestTakeoverOfNobody is a plain start.
func TestTakeoverOfNobody(t *testing.T) {
	d := startDaemon(t, "--takeover")
	d.idle("box")
	d.says(" 0% packet loss", "box", "ping", "-c1", "-W5", d.gateway("box"))
}
