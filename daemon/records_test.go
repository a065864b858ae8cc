package daemon

import (
	"os"
	"testing"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// self is the test's own process, as a record has it.
func self(t *testing.T) (pid int, start uint64) {
	t.Helper()
	start, err := sandbox.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return os.Getpid(), start
}

// stored puts a container into the model as an earlier daemon left it. The daemon itself has heard nothing of it.
func stored(t *testing.T, d *Daemon, spec network.ContainerSpec, change func(*network.Container)) *network.Container {
	t.Helper()
	c, _, err := d.model.CreateContainer(spec)
	if err == nil && change != nil {
		c, err = d.model.UpdateContainer(c.ID, func(c *network.Container) error {
			change(c)
			return nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// livingOn is a record of a container that runs, as a change for stored. Its process is the test itself, which nothing
// signals because the container is attached.
func livingOn(t *testing.T) func(*network.Container) {
	t.Helper()
	pid, start := self(t)
	return func(c *network.Container) {
		c.Status, c.Attached, c.Pid, c.PidStart = network.Running, true, pid, start
	}
}

// actions are the types and actions of all events so far.
func actions(t *testing.T, d *Daemon) []string {
	t.Helper()
	var list []string
	for _, e := range eventsSince(t, d, time.Time{}.Add(1)) {
		list = append(list, e.Type+" "+e.Action)
	}
	return list
}

// eventsSince returns the events from since until now.
func eventsSince(t *testing.T, d *Daemon, since time.Time) (list []api.Event) {
	t.Helper()
	if err := d.Events(t.Context(), since, time.Now(), func(e api.Event) error {
		list = append(list, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

// started makes an attached container of the test's own process and starts it.
func started(t *testing.T, d *Daemon, spec network.ContainerSpec) *network.Container {
	t.Helper()
	pid, _ := self(t)
	spec.Attached = true
	c, _, err := d.CreateContainer(t.Context(), spec)
	if err == nil {
		_, err = d.StartContainer(t.Context(), c.ID, api.Started{Pid: pid})
	}
	if err == nil {
		c, err = d.Container(c.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}
