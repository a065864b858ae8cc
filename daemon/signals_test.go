package daemon

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// TestSignalsAreForRunningContainersOfOurOwn sends signals to containers in each state.
func TestSignalsAreForRunningContainersOfOurOwn(t *testing.T) {
	d, f := newFakeDaemon(t)
	own, process := ran(t, d, f, network.ContainerSpec{Name: "own"})
	startAttached(t, d, "attached", network.BridgeName)
	if _, _, err := d.CreateContainer(t.Context(), network.ContainerSpec{Name: "created"}); err != nil {
		t.Fatal(err)
	}
	since := time.Now()
	for _, test := range []struct {
		name, signal string
		want         error
	}{
		{"attached", "", errdefs.ErrForbidden},
		{"attached", "KILL", errdefs.ErrForbidden},
		{"created", "", errdefs.ErrConflict},
		{"nobody", "", errdefs.ErrNotFound},
		{"own", "SIGNOTHING", errdefs.ErrInvalid},
		{"own", "CONT", nil},
	} {
		if err := d.KillContainer(t.Context(), test.name, test.signal); !errors.Is(err, test.want) {
			t.Errorf("%s to %s: %v, want %v", test.signal, test.name, err, test.want)
		}
	}
	got := eventsSince(t, d, since)
	if len(got) != 1 || got[0].Action != "kill" || got[0].ID != own.ID || got[0].Attributes["signal"] != "18" {
		t.Errorf("events: %v", got)
	}
	if err := d.StopContainer(t.Context(), "created", "", new(time.Duration)); err != nil {
		t.Errorf("stopping what does not run: %v", err)
	}
	if err := d.StopContainer(t.Context(), "own", "", duration(-1)); err != nil { // SIGTERM ends it
		t.Error(err)
	}
	if sandbox.Alive(process.Process.Pid, own.PidStart) {
		t.Error("it runs on")
	}
	if c, err := d.Container("own"); err != nil || c.Status != network.Exited || c.ExitCode != 137 {
		t.Errorf("it is %+v, %v", c, err) // nobody has left another status
	}
}

// TestStopKillsWhatGoesOn stops a process that the signal does not end.
func TestStopKillsWhatGoesOn(t *testing.T) {
	d, f := newFakeDaemon(t)
	c, _ := ran(t, d, f, network.ContainerSpec{Name: "c1"})
	since := time.Now()
	if err := d.StopContainer(t.Context(), "c1", "CONT", duration(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if now, err := d.Container(c.ID); err != nil || now.Status != network.Exited {
		t.Errorf("it is %+v, %v", now, err)
	}
	var got []string
	for _, e := range eventsSince(t, d, since) {
		if e.Action == "kill" || e.Action == "stop" {
			got = append(got, strings.TrimSpace(e.Action+" "+e.Attributes["signal"]))
		}
	}
	if want := []string{"kill 18", "kill 9", "stop"}; !slices.Equal(got, want) {
		t.Errorf("events: %v, want %v", got, want)
	}
}

func duration(d time.Duration) *time.Duration { return &d }
