package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"

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
		spec.Command, spec.TTY, spec.Stdin, spec.Stdout, spec.Stderr = q.Command, q.TTY, nil, nil, nil
		spec.Env = lastOfEach(append(append([]string(nil), spec.Env...), q.Env...))
		spec.WorkingDir, spec.User = cmp.Or(q.WorkingDir, spec.WorkingDir), cmp.Or(q.User, spec.User)
		for _, s := range []struct {
			is bool
			at **os.File
		}{{q.Stdin, &spec.Stdin}, {q.Stdout, &spec.Stdout}, {q.Stderr, &spec.Stderr}} {
			if s.is && len(files) > 0 {
				*s.at, files = files[0], files[1:]
			}
		}
		return sandbox.Exec(ctx, sandbox.Target{Pid: p.Pid()}, spec)
	}
	return sandbox.ServeExec(dir, start)
}
