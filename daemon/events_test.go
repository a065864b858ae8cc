package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

// TestEventsOfATime asks for parts of what has happened: the bounds belong to it.
func TestEventsOfATime(t *testing.T) {
	d := newTestDaemon(t)
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(second int) time.Time { return begin.Add(time.Duration(second) * time.Second) }
	for i := range 5 {
		d.events.recent = append(d.events.recent, api.Event{Action: fmt.Sprint(i), Time: at(i)})
	}
	for name, test := range map[string]struct {
		since, until time.Time
		want         string
	}{
		"all":                          {at(-1), at(9), "0 1 2 3 4"},
		"from one on":                  {at(2), at(9), "2 3 4"},
		"to one":                       {at(-1), at(2), "0 1 2"},
		"one":                          {at(3), at(3), "3"},
		"between two":                  {at(3).Add(1), at(4).Add(-1), ""},
		"after the last":               {at(5), at(9), ""},
		"before the first":             {at(-9), at(-1), ""},
		"turned round":                 {at(4), at(1), ""},
		"from now on, to what is past": {time.Time{}, at(9), ""},
	} {
		var got []string
		if err := d.Events(t.Context(), test.since, test.until, func(e api.Event) error {
			got = append(got, e.Action)
			return nil
		}); err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("%s: %v, %v, want %s", name, got, err, test.want)
		}
	}
}

// TestEventsAreFollowed has events happen while others are read, few or more than are kept: who reads gets them in
// order, none twice, and the latest.
func TestEventsAreFollowed(t *testing.T) {
	for _, burst := range []int{1, 2, keptEvents - 1, keptEvents, 3 * keptEvents} {
		d := newTestDaemon(t)
		ctx, cancel := context.WithCancel(t.Context())
		next := 0
		add := func() {
			for range burst {
				d.events.add("container", strconv.Itoa(next), "id", nil)
				next++
			}
		}
		since := time.Now()
		add()
		var got []int
		bursts := 1
		err := d.Events(ctx, since, time.Time{}, func(e api.Event) error {
			i, err := strconv.Atoi(e.Action)
			got = append(got, i)
			switch {
			case i == next-1 && bursts == 3:
				cancel() // it was the last
			case i == next-1:
				bursts++
				add()
			}
			return err
		})
		cancel()
		if err != nil {
			t.Errorf("bursts of %d: a listener that has gone gets %v", burst, err)
		}
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Errorf("bursts of %d: they come as %v", burst, got)
		}
		if want := 3 * min(burst, keptEvents); len(got) != want {
			t.Errorf("bursts of %d: there were %d, want %d", burst, len(got), want)
		}
	}
}

// TestEventsEnd has each side end what is followed, and a reader's error.
func TestEventsEnd(t *testing.T) {
	broken := errors.New("broken pipe")
	for name, test := range map[string]struct {
		send func(d *Daemon, stop context.CancelFunc) error // at the first event
		want func(error) bool
	}{
		"the reader's connection is gone": {
			func(*Daemon, context.CancelFunc) error { return broken },
			func(err error) bool { return errors.Is(err, broken) },
		},
		"the reader has enough": {
			func(_ *Daemon, stop context.CancelFunc) error { stop(); return nil },
			func(err error) bool { return err == nil },
		},
		"the daemon ends": {
			func(d *Daemon, _ context.CancelFunc) error { d.cancel(); return nil },
			func(err error) bool { return errors.Is(err, errdefs.ErrUnavailable) },
		},
	} {
		d := newTestDaemon(t)
		d.events.add("network", "create", "id", nil)
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		err := d.Events(ctx, time.Time{}.Add(1), time.Time{}, func(api.Event) error {
			calls++
			return test.send(d, cancel)
		})
		cancel()
		if !test.want(err) || calls != 1 {
			t.Errorf("%s: %v after %d events", name, err, calls)
		}
	}
}

// TestEventsSayWhatDockersSay compares the attributes of a container's events, and of its networks', with Docker's.
func TestEventsSayWhatDockersSay(t *testing.T) {
	d, _ := newFakeDaemon(t)
	if _, _, err := d.CreateNetwork(t.Context(), network.NetworkSpec{Name: "one"}); err != nil {
		t.Fatal(err)
	}
	c := started(t, d, network.ContainerSpec{
		Name:        "c1",
		NetworkMode: "one",
		Labels:      map[string]string{"tier": "front"},
	})
	if err := d.RenameContainer(t.Context(), "c1", "c2"); err != nil {
		t.Fatal(err)
	}
	if err := d.ContainerExited(t.Context(), "c2", 4); err != nil {
		t.Fatal(err)
	}
	one, err := d.Network("one")
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"image": "", "tier": "front"}
	of := func(name string, more ...string) map[string]string {
		all := maps.Clone(labels)
		all["name"] = name
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	joins := map[string]string{"container": c.ID, "name": "one", "type": "bridge"}
	want := []struct {
		what, id   string
		attributes map[string]string
	}{
		{"network create", one.ID, map[string]string{"name": "one", "type": "bridge"}},
		{"container create", c.ID, of("c1")},
		{"network connect", one.ID, joins},
		{"container start", c.ID, of("c1")},
		{"container rename", c.ID, of("c2", "oldName", "/c1")},
		{"container die", c.ID, of("c2", "exitCode", "4", "execDuration", "0")},
		{"network disconnect", one.ID, joins},
		{"container destroy", c.ID, of("c2")},
	}
	got := eventsSince(t, d, time.Time{}.Add(1))
	if len(got) != len(want) {
		t.Fatalf("%d events: %v", len(got), got)
	}
	for i, w := range want {
		e := got[i]
		if w.attributes["execDuration"] != "" {
			w.attributes["execDuration"] = e.Attributes["execDuration"] // whatever the clock says
		}
		if e.Type+" "+e.Action != w.what || e.ID != w.id || fmt.Sprint(e.Attributes) != fmt.Sprint(w.attributes) {
			t.Errorf("event %d: %+v\nwant %+v", i, e, w)
		}
	}
}

// TestLabelsDoNotHideTheName: labels are attributes of a container's events, under their own names.
func TestLabelsDoNotHideTheName(t *testing.T) {
	d, _ := newFakeDaemon(t)
	started(t, d, network.ContainerSpec{Name: "c1", Labels: map[string]string{"name": "x", "team": "a"}})
	for _, e := range eventsSince(t, d, time.Time{}.Add(1)) {
		if e.Type == "container" && (e.Attributes["name"] != "c1" || e.Attributes["team"] != "a") {
			t.Errorf("%s: %v", e.Action, e.Attributes)
		}
	}
}
