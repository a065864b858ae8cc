package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/term"

	"github.com/usernet/usernet/daemon"
	"github.com/usernet/usernet/sandbox"
)

// serveExec has the daemon start further commands in the container: those of `docker exec`. In a container with the
// caller's files they would be the caller, which a daemon that was taken over must not become: there the user has to
// have allowed it.
func (j *job) serveExec(p *sandbox.Process) (*sandbox.ExecServer, error) {
	dir := filepath.Join(j.StateDir, "containers", j.Container.ID)
	start := func(ctx context.Context, q sandbox.ExecRequest, files []*os.File) (*sandbox.Process, error) {
		if j.Sandbox.Rootfs == "" && !j.ShareExec {
			return nil, errors.New("the container has the caller's files, so that commands in it are started by usernet " +
				"exec only; usernet run --share-exec, or --rootfs, lets the API do it")
		}
		spec := j.Sandbox
		spec.Command, spec.TTY = q.Command, q.TTY
		spec.Env = lastOfEach(append(append([]string(nil), spec.Env...), q.Env...))
		spec.WorkingDir, spec.User = cmp.Or(q.WorkingDir, spec.WorkingDir), cmp.Or(q.User, spec.User)
		q.AddStreams(&spec, files)
		return sandbox.Exec(ctx, sandbox.Target{Pid: p.Pid()}, spec)
	}
	return sandbox.ServeExec(dir, sandbox.ExecSocket, start)
}

// serveUserExec starts the commands of `usernet exec` in a container with limits, where they belong to its cgroup; nil:
// it has none. The socket is where a daemon that was taken over can put no other, and the secret shows that it is not
// that daemon which asks.
func (j *job) serveUserExec(p *sandbox.Process) (*sandbox.ExecServer, error) {
	if j.Sandbox.Cgroup == "" {
		return nil, nil
	}
	start := func(ctx context.Context, q sandbox.ExecRequest, files []*os.File) (*sandbox.Process, error) {
		if q.Spec == nil || !j.knows(q.Secret) {
			return nil, errors.New("commands are taken from the user who has run the container only")
		}
		spec := *q.Spec
		spec.Cgroup = j.Sandbox.Cgroup
		q.AddStreams(&spec, files)
		return sandbox.Exec(ctx, sandbox.Target{Pid: p.Pid()}, spec)
	}
	return sandbox.ServeExec(daemon.JobsDir(j.StateDir), j.Container.ID+execSocket, start)
}

// execInCgroup runs a command in a container with limits by its monitor, and returns the exit status.
func execInCgroup(ctx context.Context, stateDir, id string, spec sandbox.Spec) (int, error) {
	j, err := loadJob(stateDir, id)
	if err != nil {
		return 0, err
	}
	q := sandbox.ExecRequest{Spec: &spec, Secret: j.Secret, TTY: spec.TTY}
	var files []*os.File
	for _, s := range []struct {
		file **os.File
		is   *bool
	}{{&spec.Stdin, &q.Stdin}, {&spec.Stdout, &q.Stdout}, {&spec.Stderr, &q.Stderr}} {
		if *s.file != nil {
			files, *s.is, *s.file = append(files, *s.file), true, nil
		}
	}
	if fd := int(os.Stdin.Fd()); q.Stdin && term.IsTerminal(fd) {
		if old, err := term.GetState(fd); err == nil {
			defer func() { _ = term.Restore(fd, old) }()
		}
	}
	run, err := sandbox.RequestExec(ctx, daemon.JobsDir(stateDir), id+execSocket, q, files)
	if err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals)
	defer signal.Stop(signals)
	go func() {
		for s := range signals {
			n, ok := s.(syscall.Signal)
			if !ok || !sandbox.Forwarded(n) {
				continue
			}
			if n != syscall.SIGWINCH {
				_ = run.Signal(n) // or it has ended
			} else if cols, rows, err := term.GetSize(int(os.Stdin.Fd())); err == nil {
				_ = run.Resize(uint16(rows), uint16(cols))
			}
		}
	}()
	return run.Wait(ctx)
}
