package daemon

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/forwarder"
)

// What leads into sandboxes is kept by the service manager (Config.SandboxKeeper) from when it is opened until the container
// ends or leaves the network, so that interfaces have their carrier, and DNS stubs their queries, also while no daemon runs.
// It has to be dropped then: an open TAP keeps the whole network namespace. What ended while no daemon ran is dropped by the
// next one, which gets it and finds no use for it.

// SandboxKeeper keeps copies of what leads into sandboxes, as far as it has room.
type SandboxKeeper interface {
	forwarder.Keeper
	// Settle returns when the copies that were dropped are closed, or when that takes too long to wait for.
	Settle()
}

// keptPrefix is what the names begin with.
const keptPrefix = "usernet-sandbox"

// keptName is the name of f. No part but the last can have a slash in it, nor can an interface's name (dev_valid_name in
// net/core/dev.c).
func keptName(f api.SandboxFile) string {
	return strings.Join([]string{keptPrefix, f.Kind, f.Container, f.Endpoint, f.Interface}, "/")
}

// ParseKept says what was kept under a name; ok is false where it is nothing of a sandbox.
func ParseKept(name string) (f api.SandboxFile, ok bool) {
	parts := strings.SplitN(name, "/", 5)
	if len(parts) != 5 || parts[0] != keptPrefix {
		return f, false
	}
	return api.SandboxFile{Kind: parts[1], Container: parts[2], Endpoint: parts[3], Interface: parts[4]}, true
}

// keepable says whether a service manager takes a name (sd_pid_notify_with_fds(3), FDNAME).
func keepable(name string) bool {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }
	return len(name) <= 255 && !strings.ContainsFunc(name, odd)
}

// keep has a copy of f kept, and closes f. What it returns ends that, as long as the daemon is not about to end.
func (d *Daemon) keep(f api.SandboxFile) (forget func()) {
	defer func() { _ = unix.Close(f.FD) }()
	name := keptName(f)
	if !keepable(name) {
		return func() {}
	}
	d.cfg.SandboxKeeper.Keep(name, f.FD)
	return func() {
		if d.ctx.Err() == nil {
			d.cfg.SandboxKeeper.Drop(name)
		}
	}
}

// keepTAP has a plug's TAP kept.
func (d *Daemon) keepTAP(s *sandboxState, p *plug) {
	if d.cfg.SandboxKeeper == nil {
		return
	}
	fd, err := p.dev.Copy()
	if err != nil {
		return // it is closed, or there are no descriptors; the TAP can be opened again
	}
	p.forget = d.keep(api.SandboxFile{Kind: api.FileTAP, Container: s.id, Endpoint: p.ep.ID, Interface: p.ep.Interface, FD: fd})
}

// keepStub has a sandbox's stub kept. The caller holds s.mu.
func (d *Daemon) keepStub(s *sandboxState) {
	if d.cfg.SandboxKeeper == nil {
		return
	}
	files, err := s.stubFiles()
	if err != nil {
		return // as above
	}
	var forget []func()
	for _, f := range files {
		forget = append(forget, d.keep(f))
	}
	s.forgetStub = func() {
		for _, f := range forget {
			f()
		}
	}
}

// discard closes what was handed over and nobody has taken. As long as a TAP or a stub is open anywhere, neither can be made
// again inside.
func (d *Daemon) discard(h handed) {
	for f := range h {
		d.drop(f)
	}
	h.close()
	d.settle()
}

func (d *Daemon) settle() {
	if d.cfg.SandboxKeeper != nil && d.ctx.Err() == nil {
		d.cfg.SandboxKeeper.Settle()
	}
}

// drop has what was handed over as f kept no longer.
func (d *Daemon) drop(f api.SandboxFile) {
	if d.cfg.SandboxKeeper != nil {
		d.cfg.SandboxKeeper.Drop(keptName(f))
	}
}
