package daemon

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// haltedSandboxes are set up once goOn says so.
type haltedSandboxes struct {
	*fakeSandboxes
	entered, goOn chan struct{}
}

func (f haltedSandboxes) Configure(ctx context.Context, t sandbox.Target, r sandbox.Request) (*sandbox.Reply, error) {
	if len(r.Add) > 0 {
		close(f.entered)
		<-f.goOn
	}
	return f.fakeSandboxes.Configure(ctx, t, r)
}

// sleeper is a process that does nothing, in a user namespace with a number (0: unknown).
func sleeper(t *testing.T, f *fakeSandboxes, ino uint64) (pid int) {
	t.Helper()
	cmd := exec.Command("sleep", "1000000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if ino != 0 {
		f.inside[cmd.Process.Pid] = sandbox.Namespaces{User: []sandbox.NamespaceID{{Ino: ino}}}
	}
	return cmd.Process.Pid
}

// TestOneThatStartsIsNotJoined: which user namespace it has, by which the API knows its processes, is known once it
// runs, and is another than that of its last run.
func TestOneThatStartsIsNotJoined(t *testing.T) {
	d, f := newFakeDaemon(t)
	owner, _ := ran(t, d, f, network.ContainerSpec{Name: "owner", ShareAPI: true})
	joins, _, err := d.CreateContainer(
		t.Context(), network.ContainerSpec{Name: "joins", NetworkMode: "container:owner"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.ProcessExited(t.Context(), owner.ID, owner.Pid, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := d.model.StartAgain(owner.ID); err != nil {
		t.Fatal(err)
	}
	halted := haltedSandboxes{f, make(chan struct{}), make(chan struct{})}
	d.sandboxes = halted
	ownerPid, pid := sleeper(t, f, 6), sleeper(t, f, 0)
	done := make(chan error)
	go func() {
		_, err := d.StartContainer(context.Background(), owner.ID, api.Started{Pid: ownerPid})
		done <- err
	}()
	<-halted.entered
	if now, err := d.Container(owner.ID); err != nil || now.UserNSID != (network.NamespaceID{}) {
		t.Errorf("while it starts it has the user namespace %v of its last run (%v)", now.UserNSID, err)
	}
	_, err = d.StartContainer(t.Context(), joins.ID, api.Started{Pid: pid})
	if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "non running container") {
		t.Errorf("joining one that starts: %v", err)
	}
	close(halted.goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	d.sandboxes = f
	if _, err := d.StartContainer(t.Context(), joins.ID, api.Started{Pid: pid}); err != nil {
		t.Fatal(err)
	}
	now, err := d.Container(joins.ID)
	if err != nil || now.UserNSID != (network.NamespaceID{Ino: 6}) {
		t.Errorf("joined: %v (%v)", now.UserNSID, err)
	}
}

// TestAProcessThatIsNotHereSaysSo, and not only that its network could not be made.
func TestAProcessThatIsNotHereSaysSo(t *testing.T) {
	d, f := newFakeDaemon(t)
	c, _, err := d.CreateContainer(t.Context(), network.ContainerSpec{Name: "away"})
	if err != nil {
		t.Fatal(err)
	}
	f.fail = errors.New("the sandbox could not be entered")
	_, err = d.StartContainer(t.Context(), c.ID, api.Started{Pid: sleeper(t, f, 0)})
	if err == nil || !strings.Contains(err.Error(), "unset USERNET_HOST") {
		t.Errorf("%v", err)
	}
}
