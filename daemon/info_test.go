package daemon

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/usernet/usernet/network"
	vswitch "github.com/usernet/usernet/switch"
)

func TestDetailsShowMACAddressesAsText(t *testing.T) {
	mac := net.HardwareAddr{0x02, 0x42, 10, 0, 0, 2}
	b, err := json.Marshal(
		newPortDetails([]vswitch.PortInfo{{Name: "web", MAC: mac, Learned: []net.HardwareAddr{mac}}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"MAC":"02:42:0a:00:00:02"`, `"Learned":["02:42:0a:00:00:02"]`, `"Name":"web"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %s", b, want)
		}
	}
}

// TestInfoCounts has containers in each state, and their networks.
func TestInfoCounts(t *testing.T) {
	d, f := newFakeDaemon(t)
	d.cfg.Version, d.cfg.Socket = "v1", "/run/socket"
	makeNetworks(t, d, network.NetworkSpec{Name: "one"})
	started(t, d, network.ContainerSpec{Name: "running", NetworkMode: "one"})
	ran(t, d, f, network.ContainerSpec{Name: "running2"})
	ran(t, d, f, network.ContainerSpec{Name: "ended"})
	if err := d.ContainerExited(t.Context(), "ended", 1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.CreateContainer(t.Context(), network.ContainerSpec{Name: "created"}); err != nil {
		t.Fatal(err)
	}
	i := d.Info()
	if i.Containers != 4 || i.Running != 2 || i.Exited != 1 || i.Networks != 4 {
		t.Errorf("%d containers, %d of them running and %d ended, on %d networks", i.Containers, i.Running, i.Exited,
			i.Networks)
	}
	if i.Version != "v1" || i.Socket != "/run/socket" || i.StateDir != d.cfg.StateDir || i.Started != d.started {
		t.Errorf("%+v", i)
	}
	if _, has := i.Counters["panics"]; !has || len(i.Confined) != 0 {
		t.Errorf("counters: %v, confined by %v", i.Counters, i.Confined)
	}
}
