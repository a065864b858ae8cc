package daemon

import (
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/handover"
)

// What leads into sandboxes is stored (Config.FDStore) from when it is opened until the container ends or leaves the network, so that
// interfaces have their carrier, and DNS stubs their queries, also while no daemon runs. It has to be removed then: an open TAP keeps
// the whole network namespace. What ended while no daemon ran is removed by the next one, which receives it and finds no use for it.

// store has a copy of fd stored, and closes fd. What it returns ends that, as long as the daemon is not about to end.
func (d *Daemon) store(id handover.ID, fd int) (forget func()) {
	d.cfg.FDStore.Put(id, fd)
	_ = unix.Close(fd) // a copy
	return func() {
		if d.ctx.Err() == nil {
			d.cfg.FDStore.Remove(id)
		}
	}
}

// storeTAP has a plug's TAP stored.
func (d *Daemon) storeTAP(s *sandboxState, p *plug) {
	if d.cfg.FDStore == nil {
		return
	}
	fd, err := p.dev.Copy()
	if err != nil {
		return // it is closed, or there are no descriptors; the TAP can be opened again
	}
	p.forget = d.store(tapID(s.id, p.ep), fd)
}

// storeStub has a sandbox's stub stored. The caller holds s.mu.
func (d *Daemon) storeStub(s *sandboxState) {
	if d.cfg.FDStore == nil {
		return
	}
	copies, err := s.stubCopies()
	if err != nil {
		return // as above
	}
	var forget []func()
	for id, fd := range copies {
		forget = append(forget, d.store(id, fd))
	}
	s.forgetStub = func() {
		for _, f := range forget {
			f()
		}
	}
}

// discard closes what was received and nobody has taken. As long as a TAP or a stub is open anywhere, neither can be made again
// inside.
func (d *Daemon) discard(r *received) {
	left := false
	for id := range r.All() {
		d.removeStored(id)
		left = true
	}
	r.Set.Close()
	if left {
		d.awaitStore()
	}
}

// awaitStore returns when the store has closed what was removed from it.
func (d *Daemon) awaitStore() {
	if d.cfg.FDStore != nil && d.ctx.Err() == nil {
		d.cfg.FDStore.Barrier()
	}
}

// removeStored removes what was received as id from the store.
func (d *Daemon) removeStored(id handover.ID) {
	if d.cfg.FDStore != nil {
		d.cfg.FDStore.Remove(id)
	}
}
