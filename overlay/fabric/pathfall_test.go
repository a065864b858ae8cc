package fabric

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// startHostsOverRouter starts two hosts with a router between them that tells nobody what is too large.
func startHostsOverRouter(t testing.TB, isSealed bool) (h [2]*hostProcess, router *netns) {
	t.Helper()
	connect := func(pair [2]*hostProcess) {
		router = newNetns(t)
		var own *netns
		for i, p := range pair {
			own.ip(t, fmt.Sprintf("link add eth0 netns %d type veth peer name r%d netns %s", p.cmd.Process.Pid, i+1,
				router.pid()))
			p.host.ip(t, fmt.Sprintf("addr add 10.99.%d.2/24 dev eth0", i+1), "link set eth0 up",
				fmt.Sprintf("route add default via 10.99.%d.1", i+1))
			router.ip(t, fmt.Sprintf("addr add 10.99.%d.1/24 dev r%d", i+1, i+1), fmt.Sprintf("link set r%d up", i+1))
		}
		router.run(t, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
		router.run(t, "nft", `table inet t {
				chain output { type filter hook output priority 0; icmp type destination-unreachable drop; }
			}`)
	}
	there := [2]netip.Addr{netip.MustParseAddr("10.99.2.2"), netip.MustParseAddr("10.99.1.2")}
	return startHostsOver(t, 1500, isSealed, there, [2]netip.Addr{}, connect), router
}

// flow is a connection from one namespace to another over which data goes all the time.
type flow struct {
	received atomic.Int64
}

func startFlow(t testing.TB, from, to *netns, addr netip.Addr) *flow {
	t.Helper()
	f := &flow{}
	var l net.Listener
	must(t, to.in(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	}))
	var c net.Conn
	must(t, from.in(func() (err error) {
		c, err = net.DialTimeout("tcp", l.Addr().String(), 20*time.Second)
		return err
	}))
	in, err := l.Accept()
	must(t, err)
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		b := pattern(1 << 16)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		b := make([]byte, 1<<16)
		for {
			n, err := in.Read(b)
			f.received.Add(int64(n))
			if err != nil {
				if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				return
			}
		}
	}()
	t.Cleanup(func() {
		_, _, _ = c.Close(), in.Close(), l.Close()
		<-done
		<-done
	})
	return f
}

// goesOn waits until so many more bytes have arrived, and returns for how long it waited.
func (f *flow) goesOn(t testing.TB, bytes int64) time.Duration {
	t.Helper()
	began, had := time.Now(), f.received.Load()
	waitFor(t, "data", func() bool { return f.received.Load() >= had+bytes })
	return time.Since(began)
}

// mtu is the MTU that a host knows of the path to the other.
func (p *hostProcess) mtu(t testing.TB) (mtu int) {
	t.Helper()
	p.say(t, "state")
	state := p.hear(t)
	i := strings.Index(state, "PathMTU:")
	if i < 0 {
		t.Fatal(state)
	}
	_, err := fmt.Sscanf(state[i:], "PathMTU:%d", &mtu)
	must(t, err)
	return mtu
}

// TestAPathWhoseMTUFalls: a router on the way has a smaller MTU from one moment to the next, under traffic, and nobody
// says so.
func TestAPathWhoseMTUFalls(t *testing.T) {
	t.Parallel()
	h, router := startHostsOverRouter(t, true)
	f := startFlow(t, h[0].container, h[1].container, netip.MustParseAddr("10.9.0.2"))
	for range 2 {
		waitFor(t, "whole path", func() bool { return h[0].mtu(t) == 1500 })
		f.goesOn(t, 16<<20)
		router.ip(t, "link set r2 mtu 1300")
		began := time.Now()
		waitFor(t, "smaller path MTU", func() bool { return h[0].mtu(t) <= 1300 })
		found := time.Since(began)
		f.goesOn(t, 8<<20)
		t.Logf("after %v the path's MTU was %d, after %v data went on", found.Round(time.Millisecond), h[0].mtu(t),
			time.Since(began).Round(time.Millisecond))
		router.ip(t, "link set r2 mtu 1500")
	}
}

// TestAPathThatLosesAFifth: a router on the way drops a fifth of all packets each way. Hosts stay in touch, data
// gets through, and the path's MTU is not taken for a tiny one.
func TestAPathThatLosesAFifth(t *testing.T) {
	t.Parallel()
	h, router := startHostsOverRouter(t, true)
	router.run(t, "nft", `table inet lossy {
			chain forward { type filter hook forward priority 0; numgen random mod 100 < 20 drop; }
		}`)
	stream(t, h[0].container, h[1].container, netip.MustParseAddr("10.9.0.2"), 64<<10)
	for _, p := range h {
		p.say(t, "state")
		if state := p.hear(t); !strings.Contains(state, "Path:direct") || !strings.Contains(state, "Alive:true") {
			t.Error(state)
		}
		if mtu := p.mtu(t); mtu < 1280 {
			t.Errorf("the path's MTU is 1500, and %d is known", mtu)
		}
	}
}
