package daemon

import (
	"time"

	"github.com/usernet/usernet/internal/watchdog"
)

// How long a lock may be held that is held while something is waited for: the store while the disk writes, a container
// while its sandbox is entered, several times at most (agentTimeout each).
const (
	storeBound     = time.Minute
	containerBound = 5 * time.Minute
)

// startWatchdog watches the daemon's own locks. Those of networks and containers are added as these come to be.
func (d *Daemon) startWatchdog() {
	d.watchdog = watchdog.New(d.cfg.Watchdog)
	d.watchdog.Watch(
		watchdog.Mutex("daemon", &d.mu, 0),
		watchdog.Mutex("names", &d.namesMu, 0),
		watchdog.Mutex("events", &d.events.mu, 0),
	)
	d.watchdog.Watch(d.model.Locks(storeBound)...)
	d.watchdog.Watch(d.shared.Locks()...)
}

// watchContainer watches one container's lock, until what it returns is called.
func (d *Daemon) watchContainer(s *containerRuntime) (unwatch func()) {
	return d.watchdog.Watch(watchdog.Mutex("container "+s.id, &s.mu, containerBound))
}
