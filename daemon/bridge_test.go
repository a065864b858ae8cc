package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/static"
)

// patience is how long a test waits for what happens at once on a machine with nothing else to do.
const patience = 30 * time.Second

// slowDriver opens a network when it is let, and then fails as often as it is told.
type slowDriver struct {
	bridgeDriver
	opening chan struct{} // gets one for each Open
	let     chan error    // what Open waits for; nil: it opens the network
}

func (d slowDriver) Open(ctx context.Context, n *network.Network, env Env) (*engine.Network, error) {
	d.opening <- struct{}{}
	if err := <-d.let; err != nil {
		return nil, err
	}
	return d.bridgeDriver.Open(ctx, n, env)
}

func newTestDaemon(t *testing.T) *Daemon {
	t.Helper()
	return newConfiguredDaemon(t, Config{})
}

// newConfiguredDaemon makes a daemon with a directory of its own, which logs nothing.
func newConfiguredDaemon(t *testing.T, cfg Config) *Daemon {
	t.Helper()
	cfg.StateDir, cfg.Logger = t.TempDir(), slog.New(slog.DiscardHandler)
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// within fails a test in which f does not return.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s waits for a network that is being made", what)
	}
}

// TestNothingWaitsForANetworkThatIsBeingMade makes a network that takes long, and asks the daemon for everything
// meanwhile.
func TestNothingWaitsForANetworkThatIsBeingMade(t *testing.T) {
	d := newTestDaemon(t)
	slow := slowDriver{opening: make(chan struct{}, 9), let: make(chan error)}
	open := sync.OnceFunc(func() { close(slow.let) })
	defer open() // also when something waits, so that the daemon can be closed
	fast := d.drivers
	d.drivers = []Driver{slow}
	n, _, err := d.CreateNetwork(t.Context(), network.NetworkSpec{Name: "slow"})
	if err != nil {
		t.Fatal(err)
	}
	const askers = 3
	bridges := make(chan *bridge, askers)
	var group sync.WaitGroup
	for range askers {
		group.Go(func() {
			b, err := d.bridgeFor(n)
			if err != nil {
				t.Error(err)
			}
			bridges <- b
		})
	}
	<-slow.opening
	within(t, "Info", func() { d.Info() })
	within(t, "Flows", func() { _, _ = d.Flows("") })
	within(t, "NetworkDetails", func() {
		if details, err := d.NetworkDetails("slow"); details != nil || err != nil {
			t.Errorf("a network that is being made has %v, %v", details, err)
		}
	})
	within(t, "another container's lock", func() { d.runtime("another") })
	within(t, "another network", func() {
		other := &network.Network{ID: "other", Name: "other", Driver: network.DriverBridge}
		d.mu.Lock()
		d.bridges["other"] = &bridgeSlot{ready: make(chan struct{})}
		close(d.bridges["other"].ready)
		d.mu.Unlock()
		d.dropBridge(other.ID)
	})
	open()
	group.Wait()
	first := <-bridges
	for range askers - 1 {
		if b := <-bridges; b != first || b == nil {
			t.Errorf("one network is made twice")
		}
	}
	if len(slow.opening) != 0 {
		t.Error("it was opened more than once")
	}
	if d.bridge(n.ID) != first || len(d.bridgeList()) != 1 {
		t.Error("it is not there once it is made")
	}
	d.drivers = fast
}

// TestFailedNetworksAreTriedAgain has a driver fail: those who wait get its error, and the next one has it try again.
func TestFailedNetworksAreTriedAgain(t *testing.T) {
	d := newTestDaemon(t)
	slow := slowDriver{opening: make(chan struct{}, 9), let: make(chan error, 9)}
	d.drivers = []Driver{slow}
	n, _, err := d.CreateNetwork(t.Context(), network.NetworkSpec{Name: "fails"})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no threads left")
	slow.let <- broken
	if _, err := d.bridgeFor(n); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if d.bridge(n.ID) != nil || len(d.bridgeList()) != 0 {
		t.Error("a network that failed is there")
	}
	slow.let <- nil
	if b, err := d.bridgeFor(n); err != nil || b == nil {
		t.Errorf("the second time: %v", err)
	}
}

func TestNetworksWithoutASwitch(t *testing.T) {
	d := newTestDaemon(t)
	for _, name := range []string{network.HostName, network.NoneName} {
		n, err := d.Network(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.bridgeFor(n); err == nil {
			t.Errorf("network %s has a switch", name)
		}
	}
	if _, err := d.bridgeFor(&network.Network{ID: "x", Name: "x", Driver: "overlay"}); err == nil {
		t.Error("a driver that does not exist opens networks")
	}
}

// TestEachModelDriverHasOneHere holds the two lists of drivers to each other.
func TestEachModelDriverHasOneHere(t *testing.T) {
	d := &Daemon{drivers: drivers(nil, nil, static.New(slog.Default()), nil, nil, nil, nil, nil)}
	for _, m := range network.Drivers {
		if _, err := d.driverOf(m.Name); err != nil {
			t.Error(err)
		}
	}
	if len(d.drivers) != len(network.Drivers) {
		t.Errorf("%d drivers, and the model has %d", len(d.drivers), len(network.Drivers))
	}
}

// TestTurns lets many do something about two namespaces at once.
func TestTurns(t *testing.T) {
	var q turns
	var group sync.WaitGroup
	var busy [2]sync.Mutex
	for i := range 50 {
		group.Go(func() {
			done, err := q.take(t.Context(), network.NamespaceID{Ino: uint64(i % 2)})
			if err != nil {
				t.Error(err)
				return
			}
			if !busy[i%2].TryLock() {
				t.Error("two at once")
			} else {
				busy[i%2].Unlock()
			}
			done()
		})
	}
	group.Wait()
	done, err := q.take(t.Context(), network.NamespaceID{})
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := q.take(gone, network.NamespaceID{}); !errors.Is(err, context.Canceled) {
		t.Errorf("who no longer waits: %v", err)
	}
	done()
	if len(q.busy) != 0 {
		t.Errorf("%d are left", len(q.busy))
	}
}

func TestAttachNeedsANamespace(t *testing.T) {
	d := newTestDaemon(t)
	if _, err := d.Attach(t.Context(), api.AttachRequest{}, nil); err == nil {
		t.Error("attached nothing")
	}
	for path, ok := range map[string]bool{os.DevNull: false, "/proc/self/ns/mnt": false, "/proc/self/ns/net": false} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Attach(t.Context(), api.AttachRequest{}, f); (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
		if f.Close() == nil {
			t.Errorf("the descriptor of %s is still open", path)
		}
	}
	if err := d.Detach(t.Context(), "nothing"); err != nil {
		t.Errorf("a key that nobody has used: %v", err)
	}
}
