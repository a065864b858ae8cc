package daemon

import (
	"testing"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// TestContainersThatStartAgainAreOneInterface has a container start again and again while it is captured, which must
// not make the capture grow.
func TestContainersThatStartAgainAreOneInterface(t *testing.T) {
	s := newFakeStarter(t)
	d := s.d
	ran(t, d, s.f, network.ContainerSpec{Name: "c1"})
	if _, err := d.Capture(api.CaptureRequest{}); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for range 3 {
		if err := d.RestartContainer(t.Context(), "c1", "KILL", nil); err != nil {
			t.Fatal(err)
		}
		d.captures.mu.Lock()
		for _, c := range d.captures.running {
			for b := range d.captures.bridges {
				for _, a := range b.Attachments() { // as if it sent a frame
					c.endpoint(b, a)
					seen++
				}
			}
		}
		d.captures.mu.Unlock()
	}
	if list := d.Captures(); len(list) != 1 || list[0].Endpoints != 1 || seen != 3 {
		t.Errorf("%d attachments, %+v", seen, list)
	}
}
