package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/usernet/usernet/internal/errdefs"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// WaitContainer returns the exit status once the condition is met. The removal of a container ends each wait.
func (d *Daemon) WaitContainer(ctx context.Context, ref string, condition api.WaitCondition) (int, error) {
	was, err := d.model.Container(ref)
	if err != nil {
		return 0, err
	}
	s := d.runtime(was.ID)
	now := s.life.Load() // before its status is looked at, so that no end is missed
	c, err := d.model.Container(was.ID)
	if err == nil && c.Status == network.Exited && condition == api.WaitNotRunning {
		return c.ExitCode, nil
	}
	if err != nil { // removed meanwhile, maybe with its end, which is then about to be told
		c = was
	}
	until := now.ended
	if condition == api.WaitRemoved {
		until = s.removed
	}
	select {
	case <-until:
		if condition != api.WaitRemoved {
			return now.code, nil
		}
	case <-s.removed: // without having started
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-d.ctx.Done():
		return 0, errdefs.Unavailable("the daemon ends; container %s goes on", c.Name)
	}
	select {
	case <-now.ended:
		return now.code, nil
	default:
	}
	if was.Status == network.Running { // it was removed at its end, before this began to wait
		return 0, errdefs.NotFound("No such container: %s", ref)
	}
	return was.ExitCode, nil // it had ended before
}

// killWait is how long Docker waits for the end of what it has killed.
const killWait = 10 * time.Second

// KillContainer sends a signal ("" means SIGKILL) to the container's first process. After SIGKILL it returns once the
// container has ended, as with Docker, so that it can be removed or started at once.
func (d *Daemon) KillContainer(ctx context.Context, ref string, signal string) error {
	c, err := d.model.Container(ref)
	if err != nil {
		return err
	}
	sig := syscall.SIGKILL
	if signal != "" {
		if sig, err = parseSignal(signal); err != nil {
			return err
		}
	}
	stop, err := stopSignal(c, "")
	if c.Status == network.Running && (sig == syscall.SIGKILL || err == nil && sig == stop) {
		if c, err = d.noteStopped(c); err != nil {
			return err
		}
	}
	if sig != syscall.SIGKILL || c.Status != network.Running {
		return d.kill(c, sig)
	}
	ctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	if err := d.endProcess(ctx, c, "KILL", -1); !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	return errdefs.Unavailable("container %s was killed, and has not ended within %v", c.Name, killWait)
}

func (d *Daemon) kill(c *network.Container, sig syscall.Signal) error {
	switch {
	case c.Status != network.Running || c.Pid == 0 && !c.Attached:
		return errdefs.Conflict("cannot kill container: %s: container %s is not running", c.Name, c.ID)
	case c.Attached:
		return errdefs.Forbidden(
			"container %s was attached: usernet does not signal its processes; use `usernet detach %s`", c.Name, c.Name)
	case !sandbox.Alive(c.Pid, c.PidStart):
		return nil
	}
	if err := syscall.Kill(c.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal to container %s: %w", c.Name, err)
	}
	d.containerEvent("kill", c, map[string]string{"signal": strconv.Itoa(int(sig))})
	return nil
}

// noteStopped notes that a user ends c, so that its policy leaves it alone.
func (d *Daemon) noteStopped(c *network.Container) (*network.Container, error) {
	if c.Attached {
		return c, nil
	}
	return d.model.UpdateContainer(c.ID, func(c *network.Container) error {
		c.Stopped = true
		return nil
	})
}

// stopSignal is the signal that asks c to end: the one that was given, else the container's own, else SIGTERM.
func stopSignal(c *network.Container, given string) (syscall.Signal, error) {
	return parseSignal(cmp.Or(given, c.StopSignal, "TERM"))
}

// defaultStopTimeout is how long a container may take to end when it is asked to, as in Docker.
const defaultStopTimeout = 10 * time.Second

// stopTimeout is how long c may take to end: the time that was given, else the container's own.
func stopTimeout(c *network.Container, given *time.Duration) time.Duration {
	switch {
	case given != nil:
		return *given
	case c.StopTimeout != nil:
		return network.StopSeconds(*c.StopTimeout)
	}
	return defaultStopTimeout
}

// StopContainer sends signal ("" means the container's own), and SIGKILL after the timeout (nil: the container's own);
// never where that is negative. One that is about to run again stays ended.
func (d *Daemon) StopContainer(ctx context.Context, ref, signal string, timeout *time.Duration) error {
	c, err := d.model.Container(ref)
	if err != nil {
		return err
	}
	if _, err := stopSignal(c, signal); err != nil {
		return err
	}
	for noted := false; !noted; noted = c.Status != network.Restarting { // it may end by itself meanwhile
		if c, err = d.stopRestarting(ctx, c); err != nil || c.Status != network.Running {
			return err
		}
		if c, err = d.noteStopped(c); err != nil {
			return err
		}
	}
	if err := d.endProcess(ctx, c, signal, stopTimeout(c, timeout)); err != nil {
		return err
	}
	d.containerEvent("stop", c, nil)
	return nil
}

// endProcess ends a running container's process, and returns once the container has ended.
func (d *Daemon) endProcess(ctx context.Context, c *network.Container, signal string, timeout time.Duration) error {
	sig, err := stopSignal(c, signal)
	if err != nil {
		return err
	}
	ended := d.runtime(c.ID).life.Load().ended
	if now, err := d.model.Container(c.ID); err != nil || now.Status != network.Running || now.Pid != c.Pid {
		return nil // meanwhile; it may run again
	}
	if err := d.kill(c, sig); err != nil {
		return err
	}
	var late <-chan time.Time
	if timeout >= 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		late = timer.C
	}
	for {
		select {
		case <-ended:
			return nil
		case <-late:
			late = nil
			if err := d.kill(c, syscall.SIGKILL); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-d.ctx.Done():
			return errdefs.Unavailable("the daemon ends; container %s goes on", c.Name)
		}
	}
}

// parseSignal reads a number or a name, with or without SIG.
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, errdefs.Invalid("invalid signal: %s", s)
}
