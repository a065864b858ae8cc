package daemon

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// fakeStarter starts a process that does nothing for each container, as its monitor would.
type fakeStarter struct {
	t *testing.T
	d *Daemon
	f *fakeSandboxes

	mu        sync.Mutex
	fails     error
	started   []string
	forgotten []string
}

func newFakeStarter(t *testing.T) *fakeStarter {
	t.Helper()
	d, f := newFakeDaemon(t)
	s := &fakeStarter{t: t, d: d, f: f}
	d.cfg.Starter = s
	return s
}

// Start implements Starter.
func (s *fakeStarter) Start(_ context.Context, id string) error {
	s.mu.Lock()
	s.started = append(s.started, id)
	fails := s.fails
	s.mu.Unlock()
	if fails != nil {
		return fails
	}
	cmd := exec.Command("sleep", "1000000")
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // at once, so that a process that was killed is gone for the daemon
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	s.f.inside[cmd.Process.Pid] = sandbox.Namespaces{User: []sandbox.NamespaceID{{Ino: 5}}}
	_, err := s.d.StartContainer(context.Background(), id, api.Started{Pid: cmd.Process.Pid})
	return err
}

// Forget implements Starter.
func (s *fakeStarter) Forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgotten = append(s.forgotten, id)
}

// becomes waits until a container is what want says.
func becomes(t *testing.T, d *Daemon, name, want string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		c, err := d.Container(name)
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprint(c.Status, " ", c.ExitCode, " ", c.RestartCount)
		}
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s, want %s", name, got, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestBackoffOfRestarts(t *testing.T) {
	var got []time.Duration
	last := time.Duration(0)
	for range 12 {
		last = nextBackoff(last, time.Second)
		got = append(got, last)
	}
	if got[0] != 100*time.Millisecond || got[1] != 200*time.Millisecond || got[11] != time.Minute {
		t.Errorf("%v", got)
	}
	if again := nextBackoff(last, 10*time.Second); again != 100*time.Millisecond {
		t.Errorf("after a long run: %s", again)
	}
}

// TestContainersRunAgain follows one through ends by itself, by users and by both.
func TestContainersRunAgain(t *testing.T) {
	s := newFakeStarter(t)
	d := s.d
	policy := network.RestartPolicy{Mode: network.RestartOnFailure, Max: 1}
	ran(t, d, s.f, network.ContainerSpec{Name: "c1", Restart: policy})
	d.StartByPolicy()
	if err := d.ContainerExited(t.Context(), "c1", 3); err != nil {
		t.Fatal(err)
	}
	becomes(t, d, "c1", "running 0 1")
	if err := d.ContainerExited(t.Context(), "c1", 4); err != nil {
		t.Fatal(err)
	}
	becomes(t, d, "c1", "exited 4 1")
	if started, err := d.StartAgain(t.Context(), "c1"); err != nil || !started {
		t.Errorf("started: %t, %v", started, err)
	}
	becomes(t, d, "c1", "running 0 0")
	if started, err := d.StartAgain(t.Context(), "c1"); err != nil || started {
		t.Errorf("what runs is started: %t, %v", started, err)
	}
	if err := d.RestartContainer(t.Context(), "c1", "KILL", nil); err != nil {
		t.Error(err)
	}
	becomes(t, d, "c1", "running 0 0")
	c, err := d.Container("c1")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.ProcessExited(t.Context(), "c1", c.Pid+1, 9); err != nil { // of an earlier run
		t.Error(err)
	}
	becomes(t, d, "c1", "running 0 0")
	if err := d.RemoveContainer(t.Context(), "c1", true); err != nil {
		t.Error(err)
	}
	if !slices.Equal(s.forgotten, []string{c.ID}) || len(s.started) != 3 {
		t.Errorf("started %v, forgotten %v", s.started, s.forgotten)
	}
}

// TestAWaitingRestartCanBeStopped ends the wait, and who waits for the container hears of it.
func TestAWaitingRestartCanBeStopped(t *testing.T) {
	s := newFakeStarter(t) // whose API never answers: nothing is started
	d := s.d
	ran(t, d, s.f, network.ContainerSpec{Name: "c1", Restart: network.RestartPolicy{Mode: network.RestartAlways}})
	if err := d.ContainerExited(t.Context(), "c1", 3); err != nil {
		t.Fatal(err)
	}
	becomes(t, d, "c1", "restarting 3 0")
	if c, _ := d.Container("c1"); !c.Endpoints[0].IPv4.IsValid() {
		t.Error("it has given its address back")
	}
	if err := d.RemoveContainer(t.Context(), "c1", false); err == nil {
		t.Error("it is removed without force")
	}
	waited := make(chan int, 1)
	go func() {
		code, _ := d.WaitContainer(context.Background(), "c1", api.WaitNotRunning)
		waited <- code
	}()
	if err := d.StopContainer(t.Context(), "c1", "", nil); err != nil {
		t.Error(err)
	}
	becomes(t, d, "c1", "exited 3 0")
	if code := <-waited; code != 3 {
		t.Errorf("who waited got %d", code)
	}
	if c, _ := d.Container("c1"); c.Endpoints[0].IPv4.IsValid() || !c.Stopped {
		t.Errorf("stopped, it is %+v", c)
	}
}

// TestAFailedStart leaves the container ended, with the reason, and its address free.
func TestAFailedStart(t *testing.T) {
	s := newFakeStarter(t)
	d := s.d
	ran(t, d, s.f, network.ContainerSpec{Name: "c1"})
	if err := d.ContainerExited(t.Context(), "c1", 0); err != nil {
		t.Fatal(err)
	}
	s.fails = &sandbox.ExitError{Code: 127, Msg: "no such command"}
	if _, err := d.StartAgain(t.Context(), "c1"); !errors.Is(err, s.fails) {
		t.Errorf("%v", err)
	}
	becomes(t, d, "c1", "exited 127 0")
	if c, _ := d.Container("c1"); c.Error != "no such command" || c.Endpoints[0].IPv4.IsValid() {
		t.Errorf("%+v", c)
	}
}

// TestStopMeetsAnEnd has a user stop a container, or two users restart it, while it ends.
func TestStopMeetsAnEnd(t *testing.T) {
	s := newFakeStarter(t)
	d := s.d
	ran(t, d, s.f, network.ContainerSpec{Name: "c1", Restart: network.RestartPolicy{Mode: network.RestartAlways}})
	d.StartByPolicy()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	first, err := d.Container("c1")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.RestartContainer(ctx, "c1", "KILL", nil); err != nil {
		t.Fatal(err)
	}
	// Who was about to end the first process must not wait for the end of the next one.
	if err := d.endProcess(ctx, first, "KILL", time.Millisecond); err != nil {
		t.Error(err)
	}
	becomes(t, d, "c1", "running 0 0")
	// It ends by itself, and before that is stored a user's stop is noted.
	c, err := d.Container("c1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.noteStopped(c); err != nil {
		t.Fatal(err)
	}
	rt := d.runtime(c.ID)
	rt.mu.Lock()
	ended, again, err := d.recordEnd(rt, c, 1, false)
	rt.mu.Unlock()
	if err != nil || again || ended.Status != network.Exited {
		t.Errorf("stopped by a user, it is %s, and runs again: %t, %v", ended.Status, again, err)
	}
}
