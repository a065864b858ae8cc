package daemon

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// TestAttachingDoesNotGrow attaches endpoints one by one. What each allocates must not grow with those that are there:
// memory that is allocated tells of work for each of them, and is the same on a busy machine.
func TestAttachingDoesNotGrow(t *testing.T) {
	w := newVMWorld(t, func(n *network.NetworkSpec, _ *api.AttachRequest) {
		n.Pools = []network.Pool{{Subnet: netip.MustParsePrefix("10.77.0.0/16")}}
	})
	dir := t.TempDir()
	attach := func(from, n int) (allocated uint64) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range n {
			name := fmt.Sprint("vm-", from+i)
			_, err := w.d.Attach(t.Context(), api.AttachRequest{Spec: network.ContainerSpec{
				Name: name, NetworkMode: "lan", VM: network.VMSocket{Kind: "stream", Path: filepath.Join(dir, name)},
				Networks: []network.NamedEndpointSpec{{Network: "lan"}},
			}}, nil)
			if err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		return (after.Mallocs - before.Mallocs) / uint64(n)
	}
	attach(0, 10) // what is made once
	first := attach(10, 20)
	attach(30, 250)
	last := attach(280, 20)
	t.Logf("an endpoint takes %d allocations beside 10 others, and %d beside 280", first, last)
	if last > 4*first {
		t.Errorf("an endpoint takes %d allocations beside 10 others, and %d beside 280", first, last)
	}
}
