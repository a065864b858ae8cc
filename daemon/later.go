package daemon

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/usernet/usernet/api"
)

// laterDir is what the daemon knows of the directory with the ends of attachments that were asked for while no daemon
// answered.
type laterDir struct {
	sync.Mutex
	seen time.Time // when the directory had changed last as it was looked through; zero: it may have changed since
}

// laterTick is how long a directory may change without another time of change: the kernel's clock for files may go by
// its ticks, 10 ms at most (inode_set_ctime_current, CONFIG_HZ).
const laterTick = 100 * time.Millisecond

// DetachLeft ends the attachments whose end was asked for while no daemon answered. It is called when somebody asks for
// something, which a daemon that hung hears as soon as it goes on. Where it is at work already, it does nothing: nobody
// else's request waits for it.
func (d *Daemon) DetachLeft() {
	if d.cfg.Socket == "" || !d.later.TryLock() {
		return
	}
	defer d.later.Unlock()
	d.detachAllLeft()
}

// detachLeftFirst is DetachLeft that waits for one that is at work: when the daemon starts, and before an attachment
// is made, which may have the key of an earlier one.
func (d *Daemon) detachLeftFirst() {
	if d.cfg.Socket == "" {
		return
	}
	d.later.Lock()
	defer d.later.Unlock()
	d.detachAllLeft()
}

func (d *Daemon) detachAllLeft() {
	dir := api.LaterDir(d.cfg.Socket)
	is, err := os.Stat(dir)
	if err != nil || is.ModTime().Equal(d.later.seen) {
		return // as nearly always; what could not be ended is tried again when there is more, and by the next daemon
	}
	d.later.seen = time.Time{}
	if age := time.Since(is.ModTime()); age > laterTick {
		d.later.seen = is.ModTime()
	}
	if err := api.Later(dir, d.detachLeft); err != nil {
		d.log.Warn("an attachment whose end was asked for earlier is still there", "error", err)
	}
}

func (d *Daemon) detachLeft(key string) error {
	d.log.Debug("ending what was to end while no daemon answered", "key", key)
	return d.Detach(context.WithoutCancel(d.ctx), key)
}
