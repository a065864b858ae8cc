package daemon

import (
	"testing"
	"time"

	"github.com/usernet/usernet/network"
)

// TestIdleTimer has it run exactly while no container may still be in use. It is asked by stopping it.
func TestIdleTimer(t *testing.T) {
	d, _ := newFakeDaemon(t)
	d.cfg.ExitWhenIdle = time.Hour
	d.idle = time.AfterFunc(time.Hour, d.Shutdown)
	check := func(when string, want bool) {
		t.Helper()
		if ran := d.idle.Stop(); ran != want {
			t.Errorf("%s: it runs: %v", when, ran)
		}
		if want {
			d.idle.Reset(time.Hour)
		}
	}
	create := func(name string) {
		t.Helper()
		if _, _, err := d.CreateContainer(t.Context(), network.ContainerSpec{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	check("at first", true)
	create("c1")
	check("with a created one", false)
	started(t, d, network.ContainerSpec{Name: "c2"})
	if err := d.RemoveContainer(t.Context(), "c1", false); err != nil {
		t.Fatal(err)
	}
	check("with a running one", false)
	if err := d.ContainerExited(t.Context(), "c2", 0); err != nil {
		t.Fatal(err)
	}
	check("after its end", true)
	create("c3")
	if err := d.ContainerExited(t.Context(), "c3", 1); err != nil {
		t.Fatal(err)
	}
	check("with one that has ended and is kept", true)
	select {
	case <-d.Done():
		t.Error("it ends")
	default:
	}
	d.cfg.ExitWhenIdle = 1
	d.updateIdleTimer()
	within(t, "the end of an idle daemon", func() { <-d.Done() })
	d.Shutdown() // again
}

// TestDaemonsWithoutAnIdleTimer go on.
func TestDaemonsWithoutAnIdleTimer(t *testing.T) {
	d := newTestDaemon(t)
	d.updateIdleTimer()
	if d.idle != nil {
		t.Error("there is a timer")
	}
}
