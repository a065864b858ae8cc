package fabric

import (
	"bytes"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/seal"
	vswitch "github.com/usernet/usernet/switch"
)

func sealed(c *NetworkConfig) { c.Sealed = true }

// newSealedSide is a host with a key and a sealed network.
func newSealedSide(t *testing.T, host overlay.HostID, number byte) *side {
	t.Helper()
	return newSideAt(t, Config{Host: host, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Key: seal.NewKey()}, number,
		sealed)
}

func TestSealedFrames(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) { testSealedFrames(t, netip.MustParseAddrPort(at)) })
	}
}

func testSealedFrames(t *testing.T, at netip.AddrPort) {
	a := newSideAt(t, Config{Host: hostA, Listen: at, Key: seal.NewKey()}, 2, sealed)
	b := newSideAt(t, Config{Host: hostB, Listen: at, Key: seal.NewKey()}, 3, sealed)
	meet(t, a, b)
	waitFor(t, "answer of the other host", func() bool {
		p := a.fabric.Peers()
		q := b.fabric.Peers()
		return len(p) == 1 && p[0].Alive && len(q) == 1 && q[0].Alive
	})
	p := a.fabric.Peers()[0]
	if p.Path != Direct || p.Addr != b.fabric.Addrs()[0] || p.SeenAs != a.fabric.Addrs()[0] || p.RTT <= 0 {
		t.Errorf("the peer is %+v", p)
	}
	data := pattern(60000)
	a.guest.port.Receive(super(frame(b.guest.mac, a.guest.mac, vswitch.EtherTypeIPv4,
		tcp4(a.guest.ip4, b.guest.ip4, 5, data)), 1300))
	var got []received
	waitFor(t, "all data", func() bool {
		got = append(got, b.guest.take()...)
		n := 0
		for _, r := range got {
			n += len(r.payload) - 40
		}
		return n == len(data)
	})
	if !bytes.Equal(reassemble(t, got, vswitch.EtherTypeIPv4), data) {
		t.Error("other data arrived")
	}
	if len(got) > 10 {
		t.Errorf("it came in %d frames: they were not put together", len(got))
	}
}

// TestSealedNetworkRefusesPlainFrames sends plain VXLAN from the right address with the right MAC, which counts for
// nothing.
func TestSealedNetworkRefusesPlainFrames(t *testing.T) {
	a := newSealedSide(t, hostA, 2)
	b := newSide(t, hostB, 3) // a plain network with the same VNI
	meet(t, a, b)
	a.fabric.hosts[hostB].key.Store(nil)
	p := tcp4(b.guest.ip4, a.guest.ip4, 1, nil)
	waitFor(t, "count", func() bool {
		b.guest.port.Receive(frame(a.guest.mac, b.guest.mac, vswitch.EtherTypeIPv4, p))
		return a.link.Drops()[DropPlain] > 0
	})
	if got := a.guest.take(); len(got) > 0 {
		t.Errorf("a plain frame came in: %x", got[0].payload)
	}
	// And nothing goes out plain, key or not.
	before := b.link.Drops()
	a.guest.port.Receive(frame(b.guest.mac, a.guest.mac, vswitch.EtherTypeIPv4, tcp4(a.guest.ip4, b.guest.ip4, 1, nil)))
	if n := a.link.Drops()[DropNoSeal]; n == 0 {
		t.Errorf("a frame for a host without a key went somewhere: %v, %v", a.link.Drops(), before)
	}
}

// refusals keeps what a fabric says of keys.
type refusals struct {
	mu   sync.Mutex
	said []string
}

func (r *refusals) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, err.Error())
}

func (r *refusals) has(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(strings.Join(r.said, "\n"), text)
}

func TestAChangedKeyIsRefused(t *testing.T) {
	var r refusals
	a := newSideAt(t, Config{Host: hostA, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Key: seal.NewKey(),
		Refused: r.add}, 2, sealed)
	b := newSealedSide(t, hostB, 3)
	meet(t, a, b)
	waitFor(t, "answer", func() bool { return a.fabric.Peers()[0].Alive })
	thief := newSealedSide(t, hostB, 3) // says that it is b, with a key of its own
	peer := thief.peer()
	if err := a.fabric.SetPeers([]Peer{peer}); err != nil {
		t.Fatal(err)
	}
	if !r.has("refused") {
		t.Errorf("said: %v", r.said)
	}
	if a.fabric.Peers()[0].Sealed {
		t.Error("the new key counts")
	}
	if err := thief.fabric.SetPeers([]Peer{a.peer()}); err != nil {
		t.Fatal(err)
	}
	thief.entries(t, a.entry())
	p := tcp4(thief.guest.ip4, a.guest.ip4, 1, nil)
	deadline := time.Now().Add(300 * time.Millisecond) // time for what must not happen
	for time.Now().Before(deadline) {
		thief.guest.port.Receive(frame(a.guest.mac, thief.guest.mac, vswitch.EtherTypeIPv4, p))
		time.Sleep(time.Millisecond)
	}
	if got := a.guest.take(); len(got) > 0 {
		t.Error("a frame of the thief came in")
	}
}
