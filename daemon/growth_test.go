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

// allocated is what each of n calls allocates.
type allocated struct{ times, bytes uint64 }

func allocating(n int, f func(i int)) allocated {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range n {
		f(i)
	}
	runtime.ReadMemStats(&after)
	return allocated{(after.Mallocs - before.Mallocs) / uint64(n), (after.TotalAlloc - before.TotalAlloc) / uint64(n)}
}

// grows says whether what was once allocated beside few others is several times that beside many.
func (few allocated) grows(many allocated) bool {
	return many.times > 2*few.times || many.bytes > 2*few.bytes
}

// TestAttachingDoesNotGrow attaches endpoints one by one. What each allocates must not grow with those that are there:
// memory that is allocated tells of work for each of them, and is the same on a busy machine.
func TestAttachingDoesNotGrow(t *testing.T) {
	t.Run("alone", func(t *testing.T) { attachingDoesNotGrow(t, nil) })
	t.Run("with a policy", func(t *testing.T) {
		attachingDoesNotGrow(t, map[string]string{policyOption: "default deny; allow app=a -> app=b"})
	})
}

func attachingDoesNotGrow(t *testing.T, options map[string]string) {
	w := newVMWorld(t, func(n *network.NetworkSpec, _ *api.AttachRequest) {
		n.Pools = []network.Pool{{Subnet: netip.MustParsePrefix("10.77.0.0/16")}}
		n.Options = options
	})
	dir := t.TempDir()
	attach := func(from, n int) allocated {
		t.Helper()
		return allocating(n, func(i int) {
			name := fmt.Sprint("vm-", from+i)
			_, err := w.d.Attach(t.Context(), api.AttachRequest{Spec: network.ContainerSpec{
				Name: name, NetworkMode: "lan", VM: network.VMSocket{Kind: "stream", Path: filepath.Join(dir, name)},
				Networks: []network.NamedEndpointSpec{{Network: "lan"}},
			}}, nil)
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	attach(0, 10) // what is made once
	first := attach(10, 20)
	attach(30, 250)
	last := attach(280, 20)
	t.Logf("an endpoint takes %+v allocations beside 10 others, and %+v beside 280", first, last)
	if first.grows(last) {
		t.Errorf("an endpoint takes %+v allocations beside 10 others, and %+v beside 280", first, last)
	}
}

// TestPublishingDoesNotGrow publishes ports of one container one by one, and takes them away again, beside few and
// beside many.
func TestPublishingDoesNotGrow(t *testing.T) {
	w := newVMWorld(t, func(*network.NetworkSpec, *api.AttachRequest) {})
	_, err := w.d.Attach(t.Context(), api.AttachRequest{Spec: network.ContainerSpec{
		Name: "vm", NetworkMode: "lan", VM: network.VMSocket{Kind: "stream", Path: filepath.Join(t.TempDir(), "vm")},
		Networks: []network.NamedEndpointSpec{{Network: "lan"}},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ports := func(first, n int) []network.PortBinding {
		from, to := uint16(22_000+first), uint16(22_000+first+n-1)
		return []network.PortBinding{{HostIP: netip.MustParseAddr("127.83.3.1"), HostPort: from, HostEnd: to,
			Port: from, End: to, Proto: network.TCP}}
	}
	add := func(first, n int) {
		if _, err := w.d.PublishPorts(t.Context(), "vm", ports(first, n)); err != nil {
			t.Fatal(err)
		}
	}
	const n = 20
	measure := func(first int) (added, removed allocated) {
		return allocating(n, func(i int) { add(first+i, 1) }), allocating(n, func(i int) {
			if err := w.d.UnpublishPorts(t.Context(), "vm", ports(first+i, 1)); err != nil {
				t.Fatal(err)
			}
		})
	}
	add(0, 20)
	addedFew, removedFew := measure(20)
	add(20, 3000)
	addedMany, removedMany := measure(3020)
	t.Logf("a port takes %+v beside 20 others, and %+v beside 3020; to take one away takes %+v and %+v", addedFew,
		addedMany, removedFew, removedMany)
	if addedFew.grows(addedMany) || removedFew.grows(removedMany) {
		t.Errorf("a port takes %+v beside 20 others, and %+v beside 3020; to take one away takes %+v and %+v", addedFew,
			addedMany, removedFew, removedMany)
	}
}
