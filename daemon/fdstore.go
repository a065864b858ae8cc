package daemon

import (
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/handover"
)

// Descriptors that lead into sandboxes (TAPs, DNS stubs) are put into Config.FDStore when they are opened, and removed
// when the container ends or leaves the network. While no daemon runs, interfaces therefore keep their carrier and DNS
// stubs queue their queries. Removing them matters: an open TAP keeps the whole network namespace alive. What belonged
// to containers that ended while no daemon ran is removed by the next daemon, which receives it and does not use it.

// store puts a copy of fd into the store and closes fd. The function that it returns removes the copy again, unless the
// daemon is about to end.
func (d *Daemon) store(id handover.ID, fd int) (forget func()) {
	d.cfg.FDStore.Put(id, fd)
	_ = unix.Close(fd) // a copy
	return func() {
		if d.ctx.Err() == nil {
			d.cfg.FDStore.Remove(id)
		}
	}
}

// storeTAP stores an attachment's TAP.
func (d *Daemon) storeTAP(s *containerRuntime, p *attachment) {
	if d.cfg.FDStore == nil || p.dev == nil {
		return
	}
	fd, err := p.dev.Copy()
	if err != nil {
		return // it is closed, or there are no descriptors; the TAP can be opened again
	}
	p.unstore = d.store(tapID(s.id, p.endpoint), fd)
}

// storeStub stores a container's DNS stub. The caller holds s.mu.
func (d *Daemon) storeStub(s *containerRuntime) {
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
	s.unstoreStub = func() {
		for _, f := range forget {
			f()
		}
	}
}

// discard closes received descriptors that were not used. A TAP or a stub that is open anywhere cannot be made again in
// the sandbox.
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
