package forwarder

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/packet"
)

// fakeMapping is a mapping of nothing.
type fakeMapping struct {
	mapping
	ended int
}

func (m *fakeMapping) end() { m.ended++ }

// TestQueueOrder holds the order in which mappings are given up against a look at each of them, with random histories.
func TestQueueOrder(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		q, now := new(queue), clock()
		tick := func() int64 { now++; return now }
		var unanswered, answered []*fakeMapping // as they are queued
		for step := range 500 {
			live := append(slices.Clone(unanswered), answered...)
			switch action := r.IntN(6); {
			case action < 2 || len(live) == 0:
				m := new(fakeMapping)
				q.add(m)
				unanswered = append(unanswered, m)
				m.last.Store(m.queued)
			case action == 2 && len(unanswered) > 0: // it is answered
				i := r.IntN(len(unanswered))
				m := unanswered[i]
				unanswered = slices.Delete(unanswered, i, i+1)
				q.promote(&m.mapping)
				m.last.Store(m.queued)
				answered = append(answered, m)
			case action == 3: // it is used, long after it was queued
				m := live[r.IntN(len(live))]
				m.last.Store(clock() + int64(time.Hour) + tick())
			case action == 4: // it ends
				m := live[r.IntN(len(live))]
				q.remove(&m.mapping)
				same := func(o *fakeMapping) bool { return o == m }
				unanswered, answered = slices.DeleteFunc(unanswered, same), slices.DeleteFunc(answered, same)
			default: // one is given up
				got := q.oldest()
				var want *fakeMapping
				if len(unanswered) > 0 {
					want, unanswered = unanswered[0], unanswered[1:]
				} else {
					i := slices.IndexFunc(answered, func(m *fakeMapping) bool { return m.last.Load() <= m.queued })
					if i < 0 {
						i = 0 // all were used, and each has had its turn
					} else {
						answered = append(answered[i:], answered[:i]...)
						i = 0
					}
					want, answered = answered[0], answered[1:]
				}
				if got != mapped(want) {
					t.Fatalf("seed %d, step %d: another one is given up than the oldest", seed, step)
				}
			}
		}
		for range len(unanswered) + len(answered) {
			if q.oldest() == nil {
				t.Fatalf("seed %d: one is missing", seed)
			}
		}
		if !q.empty() || q.oldest() != nil {
			t.Fatalf("seed %d: one is left", seed)
		}
	}
}

func TestMappingTimeouts(t *testing.T) {
	for _, test := range []struct {
		what            string
		kind            usageKind
		answered, brief bool
		want            time.Duration
	}{
		{"nobody has answered", useUDP, false, false, unansweredTimeout},
		{"answered", useUDP, true, false, answeredTimeout},
		{"a client that got no reply", useClients, false, false, unansweredTimeout},
		{"a client that got one", useClients, true, false, answeredTimeout},
		{"a question for a name", useUDP, false, true, dnsTimeout},
		{"an answer to it", useUDP, true, true, dnsTimeout},
		{"a ping", useEcho, false, false, pingTimeout},
		{"an answered ping", useEcho, true, false, pingTimeout},
	} {
		m := &mapping{kind: test.kind}
		m.answered.Store(test.answered)
		m.brief.Store(test.brief)
		m.last.Store(int64(time.Hour))
		if m.expired(int64(time.Hour+test.want)) || !m.expired(int64(time.Hour+test.want)+1) {
			t.Errorf("%s: kept for %v, want %v", test.what, m.timeout(), test.want)
		}
	}
}

// TestFullTableServesNewcomers fills each table with what is never answered, and then with what was.
func TestFullTableServesNewcomers(t *testing.T) {
	const limit = 8
	w := newWorld(t, func(c *Config) { c.Limits = Limits{UDP: limit, Clients: limit, Echo: limit} })
	port := echoUDP(t)
	service := w.socket(t, 53)
	go func() { // answers what begins with "answer"
		b := make([]byte, 100)
		for {
			n, from, err := service.ReadFrom(b)
			if err != nil {
				return
			}
			if string(b[:min(n, 6)]) == "answer" {
				_, _ = service.WriteTo(b[:n], from)
			}
		}
	}()
	public := w.publish(t, 53, "udp").Host.String()
	client := func() net.Conn {
		c, err := net.Dial("udp", public)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	asks := func(c net.Conn) {
		t.Helper()
		eventually(t, func() error {
			_, _ = c.Write([]byte("answer"))
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			_, err := c.Read(make([]byte, 100))
			return err
		})
	}
	kept := client()
	asks(kept)
	for range 4 * limit { // from forged sources, say
		if _, err := client().Write([]byte("silence")); err != nil {
			t.Fatal(err)
		}
	}
	asks(client())
	asks(kept) // which has not been given up, and goes on under its own name
	for range 4 * limit {
		asks(client())
	}
	// The container's own datagrams have room of their own, and give way to each other in the same way.
	out := func(from uint16) {
		t.Helper()
		c := w.socket(t, from)
		eventually(t, func() error {
			if _, err := c.WriteTo([]byte("x"), gatewayPort(port)); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			_, _, err := c.ReadFrom(make([]byte, 10))
			return err
		})
		c.Close()
	}
	for i := range uint16(4 * limit) {
		w.HandleUDP(packet.Datagram{Src: netip.AddrPortFrom(containerAddr, 10000+i), Dst: netip.AddrPortFrom(gatewayAddr, 9), TTL: 64, Payload: []byte("x")})
	}
	for i := range uint16(2 * limit) {
		out(20000 + i)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for kind, n := range map[usageKind]int{useUDP: len(w.udp), useClients: len(w.inbound)} {
		if n == 0 || n > limit || w.use[containerAddr][kind] != n {
			t.Errorf("%d mappings of kind %d, and %d are counted of %d", n, kind, w.use[containerAddr][kind], limit)
		}
	}
}

// TestBothDirectionsRefresh is RFC 4787 REQ-6.
func TestBothDirectionsRefresh(t *testing.T) {
	w := newWorld(t, nil)
	peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c := w.socket(t, 4000)
	if _, err := c.WriteTo([]byte("x"), gatewayPort(uint16(peer.LocalAddr().(*net.UDPAddr).Port))); err != nil {
		t.Fatal(err)
	}
	_ = peer.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, from, err := peer.ReadFrom(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	a := w.udp[netip.AddrPortFrom(containerAddr, 4000)]
	w.mu.Unlock()
	old := clock() - int64(time.Hour)
	a.last.Store(old)
	if _, err := peer.WriteTo([]byte("y"), from); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if a.last.Load() == old || !a.answered.Load() {
			return fmt.Errorf("a datagram from outside does not count")
		}
		return nil
	})
}
