package fabric

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tai64n"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/seal"
)

// handshakeOf is what the fabric's WireGuard remembers of the handshakes that a host has begun: the latest timestamp,
// below which it takes none (WireGuard whitepaper, 5.1). The library shows neither it nor its lock.
func handshakeOf(t *testing.T, f *Fabric, key overlay.Key) (*sync.RWMutex, *tai64n.Timestamp) {
	t.Helper()
	dev := (*device.Device)(reflect.ValueOf(f.tunnel.Load()).Elem().FieldByName("dev").UnsafePointer())
	peer := dev.LookupPeer(device.NoisePublicKey(key))
	if peer == nil {
		t.Fatal("WireGuard does not know the host")
	}
	h := reflect.ValueOf(peer).Elem().FieldByName("handshake")
	return (*sync.RWMutex)(unsafe.Pointer(h.FieldByName("mutex").UnsafeAddr())),
		(*tai64n.Timestamp)(unsafe.Pointer(h.FieldByName("lastTimestamp").UnsafeAddr()))
}

// TestAHostWhoseClockWentBack: a host's clock was a day ahead, and is set right before the host starts again. The other
// one takes no handshake of it for a day, and has to begin one itself.
func TestAHostWhoseClockWentBack(t *testing.T) {
	t.Parallel()
	cfg := Config{Host: hostA, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Key: seal.NewKey()}
	a, b := newSideAt(t, cfg, 2, sealed), newSealedSide(t, hostB, 3)
	meet(t, a, b)
	alive := func(s *side) func() bool {
		return func() bool { p := s.fabric.Peers(); return len(p) == 1 && p[0].Alive }
	}
	waitFor(t, "answer of the other host", func() bool { return alive(a)() && alive(b)() })

	cfg.Listen = a.fabric.Addrs()[0]
	if err := a.fabric.Close(); err != nil {
		t.Fatal(err)
	}
	lock, latest := handshakeOf(t, b.fabric, a.fabric.PublicKey())
	ahead := tai64n.Now() // eight bytes of seconds, then nanoseconds
	binary.BigEndian.PutUint64(ahead[:], binary.BigEndian.Uint64(ahead[:])+uint64((24*time.Hour).Seconds()))
	lock.Lock()
	*latest = ahead
	lock.Unlock()

	began := time.Now()
	again := newSideAt(t, cfg, 2, sealed)
	meet(t, again, b)
	waitFor(t, "answer after the restart", alive(again))
	t.Logf("the hosts reach each other %v after the restart", time.Since(began).Round(time.Millisecond))
	lock.RLock()
	defer lock.RUnlock()
	if *latest != ahead {
		t.Error("a handshake of the host with the earlier clock was taken: this test shows nothing")
	}
}
