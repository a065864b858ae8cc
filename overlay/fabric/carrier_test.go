package fabric

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/overlay/seal"
)

// blockUDP drops all UDP of a host until it is called back.
func blockUDP(t testing.TB, n *netns) (unblock func()) {
	t.Helper()
	n.run(t, "nft", `table inet noudp {
			chain in { type filter hook input priority 0; meta l4proto udp drop; }
			chain out { type filter hook output priority 0; meta l4proto udp drop; }
		}`)
	return func() { t.Helper(); n.run(t, "nft", "delete table inet noudp") }
}

// awaitPath waits until a host goes to the other one so.
func (p *hostProcess) awaitPath(t testing.TB, want Path) {
	t.Helper()
	waitFor(t, "path "+want.String(), func() bool {
		p.say(t, "state")
		state := p.hear(t)
		return strings.Contains(state, "Path:"+want.String()) && strings.Contains(state, "Alive:true")
	})
}

// TestUDPBlocked drops all UDP between two hosts: what containers send goes by TCP, and by UDP again when that gets
// through.
func TestUDPBlocked(t *testing.T) {
	t.Parallel()
	h := startHosts(t, 1500, true)
	to := netip.MustParseAddr("10.9.0.2")
	stream(t, h[0].container, h[1].container, to, 1<<20)
	for range 2 {
		unblock := blockUDP(t, h[0].host)
		began := time.Now()
		for _, p := range h {
			p.awaitPath(t, TCP)
		}
		t.Logf("by TCP after %v", time.Since(began))
		stream(t, h[0].container, h[1].container, to, 8<<20)
		burstOfDatagrams(t, h[0].container, h[1].container, to)
		unblock()
		began = time.Now()
		for _, p := range h {
			p.awaitPath(t, Direct)
		}
		t.Logf("by UDP again after %v", time.Since(began))
		stream(t, h[0].container, h[1].container, to, 1<<20)
	}
}

// TestUDPBlockedOneWay: datagrams of one host get through, those of the other do not. The hosts stay on TCP.
func TestUDPBlockedOneWay(t *testing.T) {
	t.Parallel()
	h := startHosts(t, 1500, true)
	h[1].host.run(t, "nft", `table inet noudp {
			chain in { type filter hook input priority 0; meta l4proto udp drop; }
		}`)
	for _, p := range h {
		p.awaitPath(t, TCP)
	}
	until := time.Now().Add(3 * directAfter) // a handshake by UDP was tried by then
	for time.Now().Before(until) {
		stream(t, h[0].container, h[1].container, netip.MustParseAddr("10.9.0.2"), 1<<20)
	}
	for _, p := range h {
		p.awaitPath(t, TCP)
	}
}

// TestStrangersByTCP has nobody's connections bounded, and ended when they say what makes no sense.
func TestStrangersByTCP(t *testing.T) {
	running := leak.Goroutines()
	t.Cleanup(func() { running.NoneLeft(t) })
	f, err := New(Config{Host: hostA, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Key: seal.NewKey()})
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	at := f.TCPAddrs()
	if len(at) != 1 || at[0] != f.Addrs()[0] {
		t.Fatalf("TCP at %v, UDP at %v", at, f.Addrs())
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp", at[0].String())
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		return c
	}
	ended := func(c net.Conn) {
		t.Helper()
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Errorf("the connection goes on: %v", err)
		}
	}
	vxlan := make([]byte, encapLen)
	putVXLAN(vxlan, testVNI)
	for name, said := range map[string][]byte{
		"no greeting":   []byte("GET / HTTP/1.1\r\n\r\n"),
		"empty message": append([]byte(carrierMagic), 0, 0, 0),
	} {
		c := dial()
		_, err := c.Write(said)
		must(t, err)
		t.Log(name)
		ended(c)
	}
	c := dial() // frames before anybody is known, and what is no WireGuard
	said := []byte(carrierMagic)
	for _, m := range [][]byte{vxlan, []byte("hello")} {
		said = append(binary.BigEndian.AppendUint16(said, uint16(len(m))), m...)
	}
	_, err = c.Write(said)
	must(t, err)
	waitFor(t, "counts", func() bool { d := f.Drops(); return d[DropUnknownPeer] == 1 && d[DropNotVXLAN] == 2 })
	var more []net.Conn
	for range maxStrangersFromIP { // one is there already
		more = append(more, dial())
	}
	ended(more[len(more)-1])
	waitFor(t, "count", func() bool { return f.Drops()[DropRate] == 1 })
	f.tidyCarriers(time.Now().Add(strangerFor + time.Second))
	ended(c)
	waitFor(t, "no strangers", func() bool { return !f.hasStrangers() })
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// TestCarrierQueue fills a queue that nobody empties: it stays within its bounds, and the oldest goes first.
func TestCarrierQueue(t *testing.T) {
	q := carrierQueue{wake: make(chan struct{}, 1), room: make(chan struct{}, 1), closed: make(chan struct{})}
	close(q.closed) // nobody waits
	now := time.Now()
	put := func(n byte, size int, at time.Time) int {
		b := newCarrierBatch(at)
		b.add([]byte{n}, make([]byte, size))
		return q.put(b)
	}
	dropped := 0
	const all = 3 * carrierBatches
	for i := range all {
		dropped += put(byte(i), 10, now)
	}
	if dropped != all-carrierBatches || len(q.list) != carrierBatches {
		t.Errorf("%d are there, and %d were dropped", len(q.list), dropped)
	}
	if first := (*q.list[0].buf)[2]; first != all-carrierBatches {
		t.Errorf("the first is %d", first)
	}
	for range carrierBytes >> 14 {
		put(0, 1<<15, now)
	}
	if q.bytes > carrierBytes || len(q.list) > carrierBatches {
		t.Errorf("%d bytes in %d", q.bytes, len(q.list))
	}
	n := len(q.list)
	put(1, 1, now.Add(2*carrierStale))
	list, stale := q.take(nil, now.Add(2*carrierStale))
	if len(list) != 1 || stale < n-1 || q.bytes != 0 {
		t.Errorf("%d of %d were stale, %d were taken, %d bytes are left", stale, n, len(list), q.bytes)
	}
}
