package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// watch ends the container when its process has ended. The caller holds s.mu.
func (d *Daemon) watch(s *containerRuntime, c *network.Container) {
	ctx, cancel := context.WithCancel(d.ctx)
	s.stop = cancel
	seen := d.seesPath(c) // now, since who attached it may remove the path as soon as there is an answer
	d.wg.Go(func() {
		defer cancel()
		for !d.waitFor(ctx, s, c, seen) {
			select {
			case <-ctx.Done():
				return // ended otherwise, or the daemon ends
			case <-time.After(time.Second): // what it took to watch, such as a descriptor, may be there then
			}
		}
		s.mu.Lock()
		if ctx.Err() == nil { // else its monitor has told of the end, and it may run again
			d.teardown(s) // its addresses answer nobody from here on
		}
		s.mu.Unlock()
		if c.Monitor != 0 {
			grace, stop := context.WithTimeout(ctx, reportGrace)
			_ = sandbox.Wait(grace, c.Monitor, c.MonitorStart) // the code below works either way
			stop()
		}
		if ctx.Err() == nil {
			_ = d.ProcessExited(d.ctx, c.ID, c.Pid, d.exitStatus(c))
		}
	})
}

// seesPath says whether the daemon finds c's namespace at the path where the client has opened it.
func (d *Daemon) seesPath(c *network.Container) bool {
	if c.Pid != 0 || c.NetNSID == (network.NamespaceID{}) {
		return true // the path is the daemon's own to look up, or there is none
	}
	dev, ino, err := d.cfg.Helper.Namespace(c.NetNS)
	return err == nil && (network.NamespaceID{Dev: dev, Ino: ino}) == c.NetNSID
}

// waitFor returns true when the sandbox of c has ended, and false when that cannot be told now.
func (d *Daemon) waitFor(ctx context.Context, s *containerRuntime, c *network.Container, seen bool) bool {
	if c.Moves {
		return d.follow(ctx, s)
	}
	if c.Pid == 0 && c.Holder != 0 {
		return sandbox.Wait(ctx, c.Holder, c.HolderStart) == nil && ctx.Err() == nil
	}
	if c.IsVM() {
		<-ctx.Done() // it ends when it is detached
		return false
	}
	if c.Pid == 0 {
		return d.waitPath(ctx, c, seen) == nil
	}
	err := sandbox.Wait(ctx, c.Pid, c.PidStart)
	if err != nil && ctx.Err() == nil {
		d.log.Debug("the end of a container would not be noticed now", "container", c.Name, "error", err)
	}
	return err == nil && ctx.Err() == nil
}

// waitPath returns when c's path no longer leads to the namespace to which it leads now. Where the daemon does not see
// what the client saw there (seen), the end is what the client says: it waits for ctx.
func (d *Daemon) waitPath(ctx context.Context, c *network.Container, seen bool) error {
	path := c.NetNS
	byDescriptor := c.NetNSID != (network.NamespaceID{})
	dev, ino, err := d.sandboxes.Namespace(path)
	switch {
	case !seen:
		<-ctx.Done()
		return ctx.Err()
	case errors.Is(err, os.ErrNotExist), byDescriptor && err == nil &&
		(network.NamespaceID{Dev: dev, Ino: ino}) != c.NetNSID:
		return nil
	case err != nil:
		return err
	}
	tick := time.NewTicker(2 * time.Second) // nothing tells when a bind mount goes; this is how late it is noticed
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		nowDev, nowIno, err := d.sandboxes.Namespace(path)
		if errors.Is(err, os.ErrNotExist) || err == nil && (nowDev != dev || nowIno != ino) {
			return nil
		}
	}
}

// exitFile is where a container's monitor leaves the exit status.
func (d *Daemon) exitFile(id string) string { return filepath.Join(d.containerDir(id), "exit") }

// exitStatus reads what the monitor left for a daemon that was not there; 137 (killed) where it left nothing.
func (d *Daemon) exitStatus(c *network.Container) int {
	b, err := os.ReadFile(d.exitFile(c.ID))
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			return n
		}
	}
	if c.Attached {
		return 0 // not ours to know
	}
	return 128 + int(syscall.SIGKILL)
}
