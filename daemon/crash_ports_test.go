package daemon

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/network/boltstore"
)

// TestKilledDaemonKeepsPorts kills a daemon at random instants while ports of a container are published and taken away,
// one or some at a time. What it has acknowledged has to be in the store, asked for and bound, and what it was just
// about to do wholly or not at all.
func TestKilledDaemonKeepsPorts(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "un-crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	client, kill := serveInChild(t, dir)
	link := filepath.Join(dir, "machine")
	made, err := client.Attach(t.Context(), api.AttachRequest{Key: "vm", Spec: network.ContainerSpec{
		Name: "vm", NetworkMode: network.BridgeName, VM: network.VMSocket{Kind: "stream", Path: link},
	}}, nil)
	if err == nil {
		err = os.Symlink(made.VM.Socket, link) // else the machine is gone with the daemon
	}
	if err != nil {
		t.Fatal(err)
	}
	host := netip.MustParseAddr("127.83.2.1")
	binding := func(port uint16) network.PortBinding {
		return network.PortBinding{HostIP: host, HostPort: port, HostEnd: port, Port: 80, End: 80, Proto: network.TCP}
	}
	told := map[uint16]bool{}
	rounds := 0
	for deadline := time.Now().Add(8 * time.Second); rounds < 60 && time.Now().Before(deadline); rounds++ {
		ended := make(chan []uint16) // what was asked for and not answered
		go func() { ended <- publishUntilKilled(t, client, binding, told) }()
		atRandom()
		kill()
		pending := <-ended
		asked, bound := storedPortsOf(t, dir)
		if !slices.Equal(asked, bound) {
			t.Fatalf("asked for are %v, and bound %v", asked, bound)
		}
		changed := 0
		have := map[uint16]bool{}
		for _, p := range asked {
			have[p] = true
		}
		for _, p := range pending {
			if have[p] != told[p] {
				changed++
			}
		}
		if changed != 0 && changed != len(pending) {
			t.Fatalf("of %v a part was changed: %v", pending, asked)
		}
		for p := range maps.Keys(told) {
			if !have[p] && !slices.Contains(pending, p) {
				t.Fatalf("%d was acknowledged, and is not among %v", p, asked)
			}
		}
		for _, p := range asked {
			if !told[p] && !slices.Contains(pending, p) {
				t.Fatalf("%d was taken away, and is among %v", p, asked)
			}
		}
		clear(told)
		maps.Copy(told, have)
		client, kill = serveInChild(t, dir)
		list, err := client.Ports(t.Context(), "vm")
		if err != nil || len(list) != len(asked) {
			t.Fatalf("%v is published again of %v: %v", list, asked, err)
		}
	}
	kill()
	t.Logf("%d kills, %d ports at the end", rounds, len(told))
}

// publishUntilKilled publishes ports of the container and takes them away, until the daemon is gone. It keeps told, and
// returns what was not answered.
func publishUntilKilled(
	t *testing.T, c *api.Client, binding func(uint16) network.PortBinding, told map[uint16]bool,
) (pending []uint16) {
	for {
		pending = nil
		first := uint16(21_000 + rand.IntN(20))
		for p := first; p < first+uint16(1+rand.IntN(3)); p++ {
			if told[p] == told[first] {
				pending = append(pending, p)
			}
		}
		var list []network.PortBinding
		for _, p := range pending {
			list = append(list, binding(p))
		}
		var err error
		if told[first] {
			err = c.PortsRemove(t.Context(), "vm", list)
		} else {
			_, err = c.PortsAdd(t.Context(), "vm", list)
		}
		if refused := (*api.Error)(nil); errors.As(err, &refused) {
			t.Errorf("%v: %v", pending, err)
		}
		if err != nil {
			return pending
		}
		was := told[first]
		for _, p := range pending {
			if was {
				delete(told, p)
			} else {
				told[p] = true
			}
		}
	}
}

// storedPortsOf opens the store that a killed daemon left, and returns the host ports of the container.
func storedPortsOf(t *testing.T, dir string) (asked, bound []uint16) {
	t.Helper()
	m, err := boltstore.OpenModel(filepath.Join(dir, "usernet.db"), network.Options{})
	if err != nil {
		t.Fatalf("the store does not open: %v", err)
	}
	defer m.Close()
	c, err := m.Container("vm")
	if err != nil {
		t.Fatal(err)
	}
	hosts := func(list []network.PortBinding) (ports []uint16) {
		for _, b := range list {
			ports = append(ports, b.HostPort)
		}
		slices.Sort(ports)
		return ports
	}
	return hosts(c.Ports), hosts(c.Bound)
}
