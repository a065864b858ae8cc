package daemon

import (
	"context"
	"os"

	"github.com/usernet/usernet/api"
)

// DetachLeft ends the attachments whose end was asked for while no daemon answered. It is called when the daemon
// starts, when somebody asks for something, which a daemon that hung hears as soon as it goes on, and before an
// attachment is made, which may have the key of an earlier one.
func (d *Daemon) DetachLeft() {
	if d.cfg.Socket == "" {
		return
	}
	dir := api.LaterDir(d.cfg.Socket)
	if _, err := os.Stat(dir); err != nil {
		return // as nearly always
	}
	d.later.Lock()
	defer d.later.Unlock()
	if err := api.Later(dir, func(key string) error { return d.detachLeft(key) }); err != nil {
		d.log.Warn("an attachment whose end was asked for earlier is still there", "error", err)
	}
}

func (d *Daemon) detachLeft(key string) error {
	d.log.Debug("ending what was to end while no daemon answered", "key", key)
	return d.Detach(context.WithoutCancel(d.ctx), key)
}
