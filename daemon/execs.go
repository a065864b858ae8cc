package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// Bounds of commands that were asked for by the API: how many are known at a time, and how long one is that has ended,
// or was never started.
const (
	maxExecs  = 1024
	keptExecs = 5 * time.Minute
)

// execs are the commands that were asked for.
type execs struct {
	mu   sync.Mutex // guards the rest
	byID map[string]*execution
}

// execution is one of them.
type execution struct {
	state api.Exec
	spec  sandbox.ExecRequest
	since time.Time // of its making or its end
	run   *sandbox.RemoteExec
	ready chan struct{} // closed when run is there, or it could not be started
	ended chan struct{} // closed when it has ended
}

// CreateExec notes a command that StartExec then starts in a running container.
func (d *Daemon) CreateExec(_ context.Context, ref string, q api.Exec) (string, error) {
	c, err := d.model.Container(ref)
	switch {
	case err != nil:
		return "", err
	case c.Status != network.Running:
		return "", errdefs.Conflict("container %s is not running", c.ID)
	case c.Attached || c.Pid == 0:
		return "", errdefs.Forbidden("container %s was attached: usernet starts nothing in it", c.Name)
	case len(q.Command) == 0:
		return "", errdefs.Invalid("No exec command specified")
	}
	id := make([]byte, 32)
	_, _ = rand.Read(id) // never fails
	q.ID, q.Container = hex.EncodeToString(id), c.ID
	d.execs.mu.Lock()
	defer d.execs.mu.Unlock()
	for id, e := range d.execs.byID {
		if !e.state.Running && time.Since(e.since) > keptExecs {
			delete(d.execs.byID, id)
		}
	}
	if len(d.execs.byID) >= maxExecs {
		return "", errdefs.Unavailable("%d commands were asked for, and no more are possible now", maxExecs)
	}
	d.execs.byID[q.ID] = &execution{
		state: q,
		since: time.Now(),
		ready: make(chan struct{}),
		ended: make(chan struct{}),
		spec: sandbox.ExecRequest{Command: q.Command, Env: q.Env, WorkingDir: q.WorkingDir, User: q.User, TTY: q.TTY,
			Stdin: q.Stdin, Stdout: q.Stdout, Stderr: q.Stderr},
	}
	d.containerEvent("exec_create: "+strings.Join(q.Command, " "), c, map[string]string{"execID": q.ID})
	return q.ID, nil
}

// execution finds a command.
func (d *Daemon) execution(id string) (*execution, error) {
	d.execs.mu.Lock()
	defer d.execs.mu.Unlock()
	if e := d.execs.byID[id]; e != nil {
		return e, nil
	}
	return nil, errdefs.NotFound("No such exec instance: %s", id)
}

// Exec is the state of a command.
func (d *Daemon) Exec(id string) (api.Exec, error) {
	e, err := d.execution(id)
	if err != nil {
		return api.Exec{}, err
	}
	d.execs.mu.Lock()
	defer d.execs.mu.Unlock()
	return e.state, nil
}

// StartExec starts a command with the streams that it was made with, which stay the caller's, and returns once it runs.
func (d *Daemon) StartExec(ctx context.Context, id string, detached bool, files []*os.File) error {
	e, err := d.execution(id)
	if err != nil {
		return err
	}
	c, err := d.model.Container(e.state.Container)
	if err != nil {
		return err
	}
	d.execs.mu.Lock()
	running := e.state.Running || e.state.ExitCode != nil
	if !running {
		e.state.Running = true
	}
	d.execs.mu.Unlock()
	switch {
	case running:
		return errdefs.Conflict("exec instance %s has already run", id)
	case c.Status != network.Running:
		return d.endExec(e, c, 126, errdefs.Conflict("container %s is not running", c.ID))
	}
	if detached {
		e.spec.Stdin, e.spec.Stdout, e.spec.Stderr = false, false, false
	}
	d.containerEvent("exec_start: "+strings.Join(e.spec.Command, " "), c, map[string]string{"execID": id})
	run, err := sandbox.RequestExec(ctx, d.containerDir(c.ID), sandbox.ExecSocket, e.spec, files)
	if err != nil {
		code := 126
		if x := new(sandbox.ExitError); errors.As(err, &x) {
			code, err = x.Code, errdefs.Invalid("%s", x.Msg)
		}
		return d.endExec(e, c, code, err)
	}
	d.execs.mu.Lock()
	e.run, e.state.Pid = run, run.Pid
	d.execs.mu.Unlock()
	close(e.ready)
	d.wg.Go(func() {
		code, err := run.Wait(d.ctx)
		if err != nil {
			code = 137 // it has ended with its container
		}
		_ = d.endExec(e, c, code, nil)
	})
	return nil
}

// endExec notes that a command has ended, or could not be started because of why, which it returns.
func (d *Daemon) endExec(e *execution, c *network.Container, code int, why error) error {
	d.execs.mu.Lock()
	e.state.Running, e.state.ExitCode, e.state.Pid, e.since = false, &code, 0, time.Now()
	started := e.run != nil
	e.run = nil
	d.execs.mu.Unlock()
	if !started {
		close(e.ready)
	}
	close(e.ended)
	d.containerEvent("exec_die", c, map[string]string{"execID": e.state.ID, "exitCode": strconv.Itoa(code)})
	return why
}

// WaitExec returns once a command has ended, or the daemon ends.
func (d *Daemon) WaitExec(id string) {
	e, err := d.execution(id)
	if err != nil {
		return
	}
	select {
	case <-e.ended:
	case <-d.ctx.Done():
	}
}

// ResizeExec gives a command's terminal a size. Clients ask for it while the command is about to start.
func (d *Daemon) ResizeExec(ctx context.Context, id string, rows, cols uint16) error {
	e, err := d.execution(id)
	if err != nil {
		return err
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	d.execs.mu.Lock()
	run := e.run
	d.execs.mu.Unlock()
	if run == nil {
		return errdefs.Conflict("exec process is not started")
	}
	return run.Resize(rows, cols) // which waits for a monitor that does not read
}
