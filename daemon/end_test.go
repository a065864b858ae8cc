package daemon

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

func TestExitStatusThatTheMonitorLeft(t *testing.T) {
	d := newTestDaemon(t)
	for name, test := range map[string]struct {
		text     string
		attached bool
		want     int
	}{
		"zero":                       {text: "0", want: 0},
		"a line":                     {text: "42\n", want: 42},
		"spaces":                     {text: " 143 \n", want: 143},
		"no number":                  {text: "killed", want: 137},
		"two numbers":                {text: "1 2", want: 137},
		"empty":                      {text: "\n", want: 137},
		"no file":                    {want: 137},
		"no file of an attached one": {attached: true, want: 0},
		"a file of an attached one":  {text: "9", attached: true, want: 9},
	} {
		c := &network.Container{ID: strings.ReplaceAll(name, " ", "-"), Attached: test.attached}
		if test.text != "" {
			writeExit(t, d, c, test.text)
		}
		if got := d.exitStatus(c); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

// ran is a container of the daemon's own that has been started: its record has a process that does nothing, and that
// the daemon may signal.
func ran(t *testing.T, d *Daemon, f *fakeSandboxes, spec network.ContainerSpec) (*network.Container, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command("sleep", "1000000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // at once, so that a process that was killed is gone for the daemon
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	f.inside[cmd.Process.Pid] = sandbox.Namespaces{User: []sandbox.NamespaceID{{Ino: 5}}}
	c, _, err := d.CreateContainer(t.Context(), spec)
	if err == nil {
		_, err = d.StartContainer(t.Context(), c.ID, api.Started{Pid: cmd.Process.Pid})
	}
	if err == nil {
		c, err = d.Container(c.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, cmd
}

// TestTheFirstReportOfAnEndCounts reports an end twice: the record has the first exit status, and its addresses and
// switch port are free.
func TestTheFirstReportOfAnEndCounts(t *testing.T) {
	d, f := newFakeDaemon(t)
	c, _ := ran(t, d, f, network.ContainerSpec{Name: "c1"})
	e := c.Endpoints[0]
	since := time.Now()
	for _, code := range []int{3, 4} {
		if err := d.ContainerExited(t.Context(), c.ID, code); err != nil {
			t.Fatal(err)
		}
	}
	now, err := d.Container("c1")
	if err != nil || now.Status != network.Exited || now.ExitCode != 3 || now.Pid != 0 || now.Finished.Before(since) {
		t.Errorf("%+v, %v", now, err)
	}
	if id, _ := d.bridge(e.NetworkID).Owner(e.IPv4.Addr()); id != "" || now.Endpoints[0].IPv4.IsValid() {
		t.Errorf("its address is kept, by %q", id)
	}
	if got := eventsSince(t, d, since); len(got) != 2 || got[0].Attributes["exitCode"] != "3" {
		t.Errorf("events: %v", got)
	}
	next := started(t, d, network.ContainerSpec{Name: "c2"})
	if next.Endpoints[0].IPv4 != e.IPv4 {
		t.Errorf("the next one has %s, and %s is free", next.Endpoints[0].IPv4, e.IPv4)
	}
	if err := d.ContainerExited(t.Context(), "nobody", 0); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("the end of none: %v", err)
	}
}

// TestWaitForContainers waits for each condition: what has come before is answered at once, and what never comes ends
// with the container.
func TestWaitForContainers(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		spec      network.ContainerSpec
		created   bool // it was not started
		before    func(*Daemon) error
		ctx       context.Context
		condition api.WaitCondition
		during    func(*Daemon) error
		code      int
		err       error
	}{
		"its end": {
			condition: api.WaitNotRunning,
			during:    func(d *Daemon) error { return d.ContainerExited(t.Context(), "c1", 3) },
			code:      3,
		},
		"its end, which was before": {
			before:    func(d *Daemon) error { return d.ContainerExited(t.Context(), "c1", 3) },
			condition: api.WaitNotRunning,
			code:      3,
		},
		"its end, at which it is removed": {
			spec:      network.ContainerSpec{AutoRemove: true},
			condition: api.WaitNotRunning,
			during:    func(d *Daemon) error { return d.ContainerExited(t.Context(), "c1", 3) },
			code:      3,
		},
		"its removal": {
			before:    func(d *Daemon) error { return d.ContainerExited(t.Context(), "c1", 3) },
			condition: api.WaitRemoved,
			during:    func(d *Daemon) error { return d.RemoveContainer(t.Context(), "c1", false) },
			code:      3,
		},
		"its removal at its end": {
			spec:      network.ContainerSpec{AutoRemove: true},
			condition: api.WaitRemoved,
			during:    func(d *Daemon) error { return d.ContainerExited(t.Context(), "c1", 4) },
			code:      4,
		},
		"the end of one that is removed without a start": {
			created:   true,
			condition: api.WaitNotRunning,
			during:    func(d *Daemon) error { return d.RemoveContainer(t.Context(), "c1", false) },
		},
		"no longer": {ctx: gone, condition: api.WaitNotRunning, err: context.Canceled},
		"beyond the daemon's end": {
			condition: api.WaitNotRunning,
			during:    func(d *Daemon) error { d.cancel(); return nil },
			err:       errdefs.ErrUnavailable,
		},
		"the end of one that does not exist": {
			before:    func(d *Daemon) error { return d.ContainerExited(t.Context(), "c1", 0) },
			spec:      network.ContainerSpec{AutoRemove: true},
			condition: api.WaitNotRunning,
			err:       errdefs.ErrNotFound,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, f := newFakeDaemon(t)
			test.spec.Name = "c1"
			if test.created {
				if _, _, err := d.CreateContainer(t.Context(), test.spec); err != nil {
					t.Fatal(err)
				}
			} else {
				ran(t, d, f, test.spec)
			}
			if test.before != nil {
				if err := test.before(d); err != nil {
					t.Fatal(err)
				}
			}
			ctx := test.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			type result struct {
				code int
				err  error
			}
			got := make(chan result, 1)
			go func() {
				code, err := d.WaitContainer(ctx, "c1", test.condition)
				got <- result{code, err}
			}()
			if test.during != nil {
				awaitWaiter(t, "WaitContainer")
				if err := test.during(d); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case r := <-got:
				if r.code != test.code || !errors.Is(r.err, test.err) {
					t.Errorf("%d, %v, want %d, %v", r.code, r.err, test.code, test.err)
				}
			case <-time.After(patience):
				t.Fatal("it waits on")
			}
		})
	}
}

// TestWaitsMeetTheRemovalAtAnEnd: who waits for a container that is removed at its end gets its exit status.
func TestWaitsMeetTheRemovalAtAnEnd(t *testing.T) {
	d, f := newFakeDaemon(t)
	for range 20 {
		c, _ := ran(t, d, f, network.ContainerSpec{AutoRemove: true})
		begun, codes := make(chan bool), make(chan int)
		go func() {
			close(begun)
			for {
				code, err := d.WaitContainer(t.Context(), c.ID, api.WaitNotRunning)
				if err == nil {
					codes <- code
					continue
				}
				if !errors.Is(err, errdefs.ErrNotFound) {
					t.Error(err)
				}
				close(codes)
				return
			}
		}()
		<-begun
		if err := d.ContainerExited(t.Context(), c.ID, 3); err != nil {
			t.Fatal(err)
		}
		for code := range codes {
			if code != 3 {
				t.Fatalf("the status is %d", code)
			}
		}
	}
}

// awaitWaiter returns once a goroutine waits in a function of this package: in a select, or for a lock.
func awaitWaiter(t *testing.T, function string) {
	t.Helper()
	buf := make([]byte, 1<<20)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		for text := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			head, calls, _ := strings.Cut(text, "\n")
			waits := strings.Contains(head, "[select") || strings.Contains(head, "[sync.Mutex.Lock")
			if waits && strings.Contains(calls, ")."+function+"(") {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody waits in %s", function)
		}
	}
}

// TestRemovingContainers removes containers in each state, with and without force.
func TestRemovingContainers(t *testing.T) {
	for name, test := range map[string]struct {
		make  func(*testing.T, *Daemon, *fakeSandboxes)
		force bool
		want  string // words of the error; "": it is removed
	}{
		"created": {make: func(t *testing.T, d *Daemon, _ *fakeSandboxes) {
			if _, _, err := d.CreateContainer(t.Context(), network.ContainerSpec{Name: "c1"}); err != nil {
				t.Fatal(err)
			}
		}},
		"running": {
			make: func(t *testing.T, d *Daemon, f *fakeSandboxes) { ran(t, d, f, network.ContainerSpec{Name: "c1"}) },
			want: "stop the container before removing or force remove",
		},
		"running, by force": {
			make:  func(t *testing.T, d *Daemon, f *fakeSandboxes) { ran(t, d, f, network.ContainerSpec{Name: "c1"}) },
			force: true,
		},
		"ended": {make: func(t *testing.T, d *Daemon, f *fakeSandboxes) {
			ran(t, d, f, network.ContainerSpec{Name: "c1"})
			if err := d.ContainerExited(t.Context(), "c1", 0); err != nil {
				t.Fatal(err)
			}
		}},
		"attached": {
			make: func(t *testing.T, d *Daemon, _ *fakeSandboxes) {
				started(t, d, network.ContainerSpec{Name: "c1"})
			},
			want: "usernet detach c1",
		},
		"attached, by force": {
			make: func(t *testing.T, d *Daemon, _ *fakeSandboxes) {
				started(t, d, network.ContainerSpec{Name: "c1"})
			},
			force: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, f := newFakeDaemon(t)
			test.make(t, d, f)
			c, err := d.Container("c1")
			if err != nil {
				t.Fatal(err)
			}
			path, err := d.LogPath("c1")
			if err != nil || filepath.Dir(path) != d.containerDir(c.ID) {
				t.Errorf("its log is %s, %v", path, err)
			}
			writeExit(t, d, c, "0")
			f.asked()
			err = d.RemoveContainer(t.Context(), "c1", test.force)
			if (err == nil) != (test.want == "") || err != nil &&
				(!errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), test.want)) {
				t.Fatalf("%v, want %q", err, test.want)
			}
			if err != nil {
				if c, err := d.Container("c1"); err != nil || c.Status != network.Running {
					t.Errorf("it is %+v, %v", c, err)
				}
				return
			}
			if c.Attached && f.asked() != "remove eth0" {
				t.Error("its interface is left in a sandbox that goes on")
			}
			if _, err := d.Container("c1"); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("its record is there: %v", err)
			}
			if _, err := os.Stat(d.containerDir(c.ID)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its files are there: %v", err)
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.runtimes[c.ID] != nil {
				t.Error("what it had open is there")
			}
		})
	}
}

// TestContainersThatAreNeverStarted are removed once their grace is over, and only these.
func TestContainersThatAreNeverStarted(t *testing.T) {
	d, _ := newFakeDaemon(t)
	running := started(t, d, network.ContainerSpec{Name: "running"})
	created, _, err := d.CreateContainer(t.Context(), network.ContainerSpec{Name: "created"})
	if err != nil {
		t.Fatal(err)
	}
	for id, stays := range map[string]bool{running.ID: true, created.ID: false, "gone": false} {
		d.removeUnstarted(id)
		if _, err := d.Container(id); (err == nil) != stays {
			t.Errorf("%s: %v", id, err)
		}
	}
	late, _, err := d.CreateContainer(t.Context(), network.ContainerSpec{Name: "late"})
	if err != nil {
		t.Fatal(err)
	}
	d.cancel()
	d.removeUnstarted(late.ID)
	if _, err := d.Container(late.ID); err != nil {
		t.Errorf("a daemon that ends removes it: %v", err)
	}
}

// TestForcedRemovalMeetsTheContainersOwn: a container that is removed at its end is gone when the removal that killed
// it goes on.
func TestForcedRemovalMeetsTheContainersOwn(t *testing.T) {
	d, f := newFakeDaemon(t)
	ran(t, d, f, network.ContainerSpec{Name: "c1", AutoRemove: true})
	if err := d.RemoveContainer(t.Context(), "c1", true); err != nil {
		t.Error(err)
	}
}

// TestRemovalMeetsAStart: a container that starts after its removal was asked for, and before the removal comes to it,
// runs on.
func TestRemovalMeetsAStart(t *testing.T) {
	d, f := newFakeDaemon(t)
	c, _ := ran(t, d, f, network.ContainerSpec{Name: "c1"})
	if err := d.ContainerExited(t.Context(), c.ID, 0); err != nil {
		t.Fatal(err)
	}
	s := d.runtime(c.ID)
	s.mu.Lock()
	removed := make(chan error)
	go func() { removed <- d.RemoveContainer(t.Context(), "c1", false) }()
	awaitWaiter(t, "RemoveContainer")
	_, err := d.model.UpdateContainer(c.ID, func(c *network.Container) error { c.Status = network.Running; return nil })
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-removed; !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("%v, want a conflict", err)
	}
	if _, err := d.Container(c.ID); err != nil {
		t.Error(err)
	}
}

// TestNothingIsOpenForContainersThatAreGone asks for the runtime of one that was removed, as calls do that have found
// its record just before.
func TestNothingIsOpenForContainersThatAreGone(t *testing.T) {
	d, f := newFakeDaemon(t)
	c, _ := ran(t, d, f, network.ContainerSpec{Name: "c1"})
	if err := d.RemoveContainer(t.Context(), c.ID, true); err != nil {
		t.Fatal(err)
	}
	if s := d.runtime(c.ID); s == nil || s.life.Load() == nil {
		t.Errorf("its runtime is %v", s)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.runtimes); n != 0 {
		t.Errorf("%d runtimes are kept", n)
	}
}
