package daemon

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// Starter starts containers of this user once more. It is a process of its own, since the daemon may start no programs
// once it is confined; and what it runs is what `usernet run` has written down where a confined daemon cannot write.
type Starter interface {
	// Start runs a container as it was run first, and returns once its command runs. It is an *sandbox.ExitError where
	// the command or the sandbox could not be started.
	Start(ctx context.Context, id string) error
	// Forget removes what was written down of a container. It does not wait.
	Forget(id string)
}

// JobsDir is where `usernet run` writes down how containers are run. It is beside the state and no part of it: a
// confined daemon may write in the state only.
func JobsDir(stateDir string) string { return stateDir + ".jobs" }

// How long a container waits until it runs again, as in Docker: firstBackoff, which doubles up to maxBackoff with each
// time, and starts anew once the container has run for steadyRun.
const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = time.Minute
	steadyRun    = 10 * time.Second
)

// nextBackoff is how long the next wait is, after one of last (0: there was none) and a run.
func nextBackoff(last, ran time.Duration) time.Duration {
	if ran >= steadyRun || last == 0 {
		return firstBackoff
	}
	return min(2*last, maxBackoff)
}

// restarting is how far a container is that runs again. The runtime's mu guards it.
type restarting struct {
	byUser   bool               // a user restarts it: its end is not for its policy
	backoff  time.Duration      // how long the last wait was
	cancel   context.CancelFunc // ends a wait; nil: there is none
	starting chan struct{}      // closed when a start that goes on is over; nil: there is none
}

// startTimeout bounds how long a container may take to start again.
const startTimeout = time.Minute

// runLater has c, whose policy wants it, run again after a while. The caller holds s.mu.
func (d *Daemon) runLater(s *containerRuntime, c *network.Container) {
	s.again.backoff = nextBackoff(s.again.backoff, c.Finished.Sub(c.Started))
	d.runAfter(s, c, s.again.backoff, byPolicy)
}

// runAfter has c run after a wait, once the API answers. The caller holds s.mu.
func (d *Daemon) runAfter(s *containerRuntime, c *network.Container, wait time.Duration, why cause) {
	ctx, cancel := context.WithCancel(d.ctx)
	s.again.cancel = cancel
	d.wg.Go(func() {
		defer cancel()
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-d.serving: // who starts it reports to the API
		}
		if _, err := d.startAgain(ctx, c.ID, why); err != nil && ctx.Err() == nil {
			d.log.Error("container does not run again", "container", c.Name, "error", err)
		}
	})
}

// stopRestarting ends the wait of a container that is about to run again, or waits for a start that goes on, and
// returns what has become of it.
func (d *Daemon) stopRestarting(ctx context.Context, c *network.Container) (*network.Container, error) {
	s := d.runtime(c.ID)
	for c.Status == network.Restarting {
		s.mu.Lock()
		going := s.again.starting
		if s.again.cancel != nil {
			s.again.cancel()
			s.again.cancel = nil
		}
		var err error
		if going == nil {
			c, err = d.endRestart(c.ID, "")
		}
		s.mu.Unlock()
		if err != nil || going == nil {
			return c, err
		}
		select {
		case <-going:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-d.ctx.Done():
			return nil, errdefs.Unavailable("the daemon ends")
		}
		if c, err = d.model.Container(c.ID); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// endRestart makes a container that is Restarting an ended one, for a reason ("": a user stops it). Others stay as they
// are. The caller holds the runtime's mu.
func (d *Daemon) endRestart(id, reason string) (*network.Container, error) {
	changed := false
	c, err := d.model.EndContainer(id, func(c *network.Container) error {
		if changed = c.Status == network.Restarting; changed {
			c.Status, c.Error, c.Cgroup = network.Exited, reason, ""
			c.Stopped = c.Stopped || reason == ""
		}
		return nil
	})
	if err != nil || !changed {
		return c, err
	}
	ended := d.runtime(id).life.Swap(newLife())
	ended.code = c.ExitCode
	close(ended.ended)
	d.updateIdleTimer()
	return c, nil
}

// StartAgain runs a container that has ended once more, with its addresses where they are free. It says whether it was
// to be started: false is one that runs.
func (d *Daemon) StartAgain(ctx context.Context, ref string) (bool, error) {
	c, err := d.model.Container(ref)
	if err != nil {
		return false, err
	}
	return d.startAgain(ctx, c.ID, byUser)
}

// cause is who wants a container to run again.
type cause uint8

const (
	byUser   cause = iota
	byPolicy       // after its end
	atBoot         // the policy, when a daemon starts
)

// startAgain is StartAgain for a cause.
func (d *Daemon) startAgain(ctx context.Context, id string, why cause) (bool, error) {
	policy := why != byUser
	s := d.runtime(id)
	s.mu.Lock()
	for s.again.starting != nil {
		going := s.again.starting
		s.mu.Unlock()
		select {
		case <-going:
		case <-ctx.Done():
			return false, ctx.Err()
		}
		s.mu.Lock()
	}
	c, err := d.model.Container(id)
	switch {
	case err != nil:
	case c.Status == network.Running || policy && (c.Status != network.Restarting || ctx.Err() != nil):
		s.mu.Unlock()
		return false, nil
	case c.Status == network.Created && c.Resources.IsZero():
		err = errdefs.Conflict("container %s is being started", c.Name)
	case d.cfg.Starter == nil:
		err = errdefs.NotImplemented("this daemon starts no containers: it has no process that does")
	default:
		if err = d.checkOwner(c); err == nil {
			c, err = d.model.StartAgain(id)
		}
	}
	if err != nil {
		s.mu.Unlock()
		return false, err
	}
	going := make(chan struct{})
	s.again.starting = going
	if s.again.cancel != nil && !policy {
		s.again.cancel()
	}
	s.again.cancel = nil
	if !policy {
		s.again.backoff = 0
	}
	s.mu.Unlock()
	d.updateIdleTimer()
	err = d.runStarter(c, why)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		err = errors.Join(err, d.startFailed(id, err))
	}
	s.again.starting = nil
	close(going)
	return true, err
}

// runStarter has c run, which is Restarting. It counts how often the policy wanted that.
func (d *Daemon) runStarter(c *network.Container, why cause) error {
	_, err := d.model.UpdateContainer(c.ID, func(c *network.Container) error {
		c.RestartCount++
		if why != byPolicy {
			c.RestartCount = 0
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := d.makeCgroup(c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(d.ctx, startTimeout)
	defer cancel()
	return d.cfg.Starter.Start(ctx, c.ID)
}

// startFailed records that a container could not be started again. The caller holds the runtime's mu.
func (d *Daemon) startFailed(id string, why error) error {
	if d.ctx.Err() != nil {
		return nil // the next daemon starts it
	}
	c, err := d.model.Container(id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil // it was to be removed at its end
	}
	if err == nil && c.Status == network.Restarting {
		d.removeCgroup(c)
	}
	c, err = d.endRestart(id, why.Error())
	if err != nil || c.Status != network.Exited {
		return err
	}
	code := 128 // as Docker has it where a container cannot be made
	if e := new(sandbox.ExitError); errors.As(why, &e) {
		code = e.Code
	}
	_, err = d.model.UpdateContainer(id, func(c *network.Container) error {
		c.ExitCode = code
		return nil
	})
	return err
}

// checkOwner refuses to start a container whose network is another's that does not run.
func (d *Daemon) checkOwner(c *network.Container) error {
	ref, shares := strings.CutPrefix(c.NetworkMode, "container:")
	if !shares {
		return nil
	}
	owner, err := d.model.Container(ref)
	if err != nil {
		return err
	}
	if owner.Status != network.Running {
		return errdefs.Conflict("cannot join network of a non running container: %s", owner.ID)
	}
	return nil
}

// RestartContainer ends a container as StopContainer does and runs it again, or only runs it where it has ended.
func (d *Daemon) RestartContainer(ctx context.Context, ref, signal string, timeout *time.Duration) error {
	c, err := d.model.Container(ref)
	if err != nil {
		return err
	}
	if d.cfg.Starter == nil {
		return errdefs.NotImplemented("this daemon starts no containers: it has no process that does")
	}
	s := d.runtime(c.ID)
	mark := func(is bool) {
		s.mu.Lock()
		s.again.byUser = is
		s.mu.Unlock()
	}
	if c.Status == network.Running && !c.Attached {
		mark(true)
		err = d.endProcess(ctx, c, signal, stopTimeout(c, timeout))
		mark(false)
		if err != nil {
			return err
		}
		d.containerEvent("stop", c, nil)
	}
	if _, err := d.startAgain(ctx, c.ID, byUser); err != nil {
		return err
	}
	d.containerEvent("restart", c, nil)
	return nil
}

// StartByPolicy runs the containers that were about to run again when the last daemon ended, and those that have ended
// and whose policy wants them whenever a daemon starts. It is called once the API answers.
func (d *Daemon) StartByPolicy() {
	if d.cfg.Starter == nil {
		return
	}
	close(d.serving)
	for _, c := range d.model.Containers() {
		s := d.runtime(c.ID)
		s.mu.Lock()
		switch {
		case c.Status == network.Restarting && s.again.cancel == nil:
			d.runAfter(s, c, 0, byPolicy)
		case c.Status == network.Exited && c.RunsAtBoot():
			if _, err := d.model.StartAgain(c.ID); err != nil {
				d.log.Error("container does not run again", "container", c.Name, "error", err)
			} else {
				d.runAfter(s, c, 0, atBoot)
			}
		}
		s.mu.Unlock()
	}
	d.updateIdleTimer()
}
