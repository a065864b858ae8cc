package uplink

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/overlay/uplink/dhcp"
	"github.com/usernet/usernet/overlay/uplink/routers"
	vswitch "github.com/usernet/usernet/switch"
)

// goneSet returns a Set with one device, which is gone for as long as the test runs.
func goneSet(t *testing.T, name string) (*Set, *device) {
	t.Helper()
	s := NewSet(slog.New(slog.DiscardHandler), nil)
	d := &device{name: name, log: s.log, uses: 1, cancel: func() {}}
	d.links.Store(&map[uint16]*Link{})
	d.clients.Store(&map[clientKey]*dhcp.Client{})
	d.tables.Store(&map[uint16]*routers.Table{})
	s.devices[name] = d
	return s, d
}

func networkOn(t *testing.T, gateway string) *engine.Network {
	t.Helper()
	n, err := engine.New(engine.Config{Name: gateway, Gateways: []netip.Prefix{netip.MustParsePrefix(gateway)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// TestAVLANIsFreeWhenItsLastEndpointHasLeft has a network in a VLAN for two endpoints, and another one that wants it.
// The last endpoint leaves while it is told what routers announce, by one who needs what the leaver has locked.
func TestAVLANIsFreeWhenItsLastEndpointHasLeft(t *testing.T) {
	before := leak.Goroutines()
	s, d := goneSet(t, "ux")
	one, two := networkOn(t, "10.1.0.1/24"), networkOn(t, "10.2.0.1/24")
	at := Config{Device: "ux", VLAN: 20, Network: "one", Apart: true}

	var lock sync.Mutex
	lock.Lock()
	told := make(chan struct{})
	follow := at
	follow.Routers = func(routers.View) {
		close(told)
		lock.Lock()
		defer lock.Unlock()
	}
	leaveFirst, err := s.Join(follow, one)
	if err != nil {
		t.Fatal(err)
	}
	leaveSecond, err := s.Join(follow, one)
	if err != nil {
		t.Fatal(err)
	}
	joins := func(when string, isTaken bool) (leave func()) {
		t.Helper()
		leave, err := s.Join(at, two)
		var taken *TakenError
		if errors.As(err, &taken) != isTaken || !isTaken && err != nil {
			t.Errorf("%s: another network joins the VLAN: %v", when, err)
		} else if isTaken && *taken != (TakenError{Device: "ux", VLAN: 20, Network: "one", Apart: true}) {
			t.Errorf("%s: another network joins the VLAN, and the error says %v", when, err)
		}
		return leave
	}
	joins("two are in it", true)
	leaveFirst()
	leaveFirst()
	joins("one is in it", true)
	old := (*d.links.Load())[20]
	d.table(20).Take(advertOf(t, netip.MustParseAddr("fe80::1"), time.Hour))
	<-told
	leaveSecond()
	leave := joins("none is in it", false)
	if err := old.WriteFrame(new(vswitch.Frame)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a link that was left sends frames: %v", err)
	}
	lock.Unlock()
	if err := two.Close(); err != nil { // before its endpoint
		t.Error(err)
	}
	leave()
	if left := *d.links.Load(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	s.Close()
	if d.uses != 1 {
		t.Errorf("%d uses of the device are left", d.uses-1)
	}
	before.NoneLeft(t)
}
