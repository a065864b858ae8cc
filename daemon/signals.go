package daemon

import (
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

// WaitContainer returns the exit status once the condition is met. A container that has ended does not start again, so
// its next exit never comes, and its removal ends that wait.
func (d *Daemon) WaitContainer(ctx context.Context, ref string, condition api.WaitCondition) (int, error) {
	c, err := d.model.Container(ref)
	if err != nil {
		return 0, err
	}
	if c.Status == network.Exited && condition == api.WaitNotRunning {
		return c.ExitCode, nil
	}
	s := d.runtime(c.ID)
	if _, err := d.model.Container(c.ID); err != nil { // removed meanwhile, perhaps before s was made
		d.mu.Lock()
		delete(d.runtimes, c.ID)
		s.unwatch()
		d.mu.Unlock()
		return c.ExitCode, nil
	}
	until := s.ended
	if c.Status == network.Exited || condition == api.WaitRemoved {
		until = s.removed
	}
	select {
	case <-until:
	case <-s.removed: // without having started
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-d.ctx.Done():
		return 0, errdefs.Unavailable("the daemon ends; container %s goes on", c.Name)
	}
	if c.Status == network.Exited {
		return c.ExitCode, nil
	}
	if after, err := d.model.Container(c.ID); err == nil {
		return after.ExitCode, nil
	}
	return s.code, nil
}

// KillContainer sends a signal ("" means SIGKILL) to the container's first process.
func (d *Daemon) KillContainer(_ context.Context, ref string, signal string) error {
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
	return d.kill(c, sig)
}

func (d *Daemon) kill(c *network.Container, sig syscall.Signal) error {
	switch {
	case c.Status != network.Running || c.Pid == 0:
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

// StopContainer sends signal ("" means SIGTERM), and SIGKILL after the timeout; never where that is
// negative.
func (d *Daemon) StopContainer(ctx context.Context, ref, signal string, timeout time.Duration) error {
	c, err := d.model.Container(ref)
	if err != nil {
		return err
	}
	if c.Status != network.Running {
		return nil
	}
	if signal == "" {
		signal = "TERM"
	}
	if err := d.KillContainer(ctx, c.ID, signal); err != nil {
		return err
	}
	wait, cancel := ctx, context.CancelFunc(func() {})
	if timeout >= 0 {
		wait, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	if _, err := d.WaitContainer(wait, c.ID, api.WaitNotRunning); err != nil {
		if wait.Err() == nil || ctx.Err() != nil {
			return err
		}
		if err := d.kill(c, syscall.SIGKILL); err != nil {
			return err
		}
		if _, err := d.WaitContainer(ctx, c.ID, api.WaitNotRunning); err != nil {
			return err
		}
	}
	d.containerEvent("stop", c, nil)
	return nil
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
