package daemon

import (
	"errors"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/switch/tap"
)

// drainPatience is how long an end waits for answers to DNS queries that were sent on: longer than most servers take, and
// shorter than any client waits before it asks again.
const drainPatience = 250 * time.Millisecond

// HandOver returns copies of the descriptors that the daemon which takes this one's place needs: of published ports, those
// that this one was started with, and those that lead into sandboxes. They are the caller's. What
// of a sandbox cannot be copied is left out: the other daemon gets it from inside.
func (d *Daemon) HandOver() (api.Handover, error) {
	h := api.Handover{API: -1}
	var err error
	if h.Published, h.Inherited, err = d.shared.HandOver(); err != nil {
		h.Close()
		return h, err
	}
	for _, s := range d.boxes() {
		s.mu.Lock()
		files, err := s.copies()
		s.mu.Unlock()
		if err != nil {
			d.log.Debug("not handed over", "container", s.id, "error", err)
		}
		h.Sandboxes = append(h.Sandboxes, files...)
	}
	return h, nil
}

// boxes are the live parts of all containers.
func (d *Daemon) boxes() []*sandboxState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.sandboxes))
}

// copies returns copies of all that leads into the sandbox. The caller holds s.mu.
func (s *sandboxState) copies() (files []api.SandboxFile, err error) {
	var errs []error
	for id, p := range s.plugs {
		fd, err := p.dev.Copy()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files = append(files, api.SandboxFile{Kind: api.FileTAP, Container: s.id, Endpoint: id, Interface: p.ep.Interface, FD: fd})
	}
	if s.stub != nil {
		copies, err := s.stubFiles()
		files = append(files, copies...)
		errs = append(errs, err)
	}
	return files, errors.Join(errs...)
}

// Drain takes no more DNS queries from sandboxes, since another daemon has their sockets too, and answers those that it has
// taken. Call it before Close.
func (d *Daemon) Drain() {
	for _, s := range d.boxes() {
		s.mu.Lock()
		s.stub.Pause()
		s.mu.Unlock()
	}
	d.dns.Drain(drainPatience)
}

// quiet stops reading from the sandbox, and returns when all that was read has gone its way. The caller holds s.mu.
func (s *sandboxState) quiet() {
	s.stub.Pause()
	for _, p := range s.plugs {
		p.at.Quiesce()
	}
}

// handed is what the daemon before has handed over from sandboxes, by what it is: the descriptor's own field is zero.
type handed map[api.SandboxFile]int

func newHanded(files []api.SandboxFile) handed {
	h := handed{}
	for _, f := range files {
		fd := f.FD
		f.FD = 0
		if old, twice := h[f]; twice {
			_ = unix.Close(old)
		}
		h[f] = fd
	}
	return h
}

// take returns a descriptor, which becomes the caller's.
func (h handed) take(f api.SandboxFile) (fd int, ok bool) {
	fd, ok = h[f]
	delete(h, f)
	return fd, ok
}

// close closes what nobody has taken.
func (h handed) close() {
	for f, fd := range h {
		_ = unix.Close(fd)
		delete(h, f)
	}
}

// adopt connects containers to what the daemon before has handed over from their sandboxes. It reads from none before all
// are connected, so that no frame is for one that is not there yet. What is not used is closed: an interface that is
// open here could not be opened inside.
func (d *Daemon) adopt(containers []*network.Container, h handed) {
	if len(h) == 0 {
		return
	}
	defer d.discard(h)
	var begin []func()
	for _, c := range containers {
		if !ownNetwork(c) {
			continue
		}
		s := d.box(c.ID)
		s.mu.Lock()
		for _, e := range d.missing(s, c) {
			file := api.SandboxFile{Kind: api.FileTAP, Container: c.ID, Endpoint: e.ID, Interface: e.Interface}
			fd, ok := h.take(file)
			if !ok {
				continue
			}
			p, err := d.adoptTAP(s, c, e, fd)
			if err != nil {
				d.drop(file)
				d.log.Warn("a TAP that was handed over is of no use", "container", c.Name, "interface", e.Interface, "error", err)
				continue
			}
			begin = append(begin, p.at.Start)
		}
		if d.adoptStub(s, c, h) {
			begin = append(begin, func() { s.stub.Serve(d.dns, d.stubClient(c.ID), d.log) })
		}
		s.mu.Unlock()
	}
	for _, f := range begin {
		f()
	}
}

// adoptTAP connects an endpoint by its TAP's descriptor, which it takes over, also when it fails.
func (d *Daemon) adoptTAP(s *sandboxState, c *network.Container, e *network.Endpoint, fd int) (*plug, error) {
	f := os.NewFile(uintptr(fd), e.Interface)
	if err := tap.Check(fd, e.Interface); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	n, err := d.model.Network(e.NetworkID)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	b, err := d.bridgeFor(n)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	dev, err := tap.Open(f, !offload(e))
	if err != nil {
		return nil, err
	}
	p, err := d.plugTAP(s, c, e, b, dev)
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return p, nil
}

// stubFiles returns copies of the stub's descriptors.
func (s *sandboxState) stubFiles() ([]api.SandboxFile, error) {
	copies, err := s.stub.Copies()
	if err != nil {
		return nil, err
	}
	var files []api.SandboxFile
	for _, f := range []api.SandboxFile{
		{Kind: api.FileDNSPacket, FD: copies.Packet},
		{Kind: api.FileDNSListener, FD: copies.Listener},
		{Kind: api.FileDNSRules, FD: copies.Rules},
	} {
		if f.FD >= 0 {
			f.Container = s.id
			files = append(files, f)
		}
	}
	return files, nil
}

// adoptStub says whether the container's stub was handed over, whole. What was not is of no use, and is kept no longer.
func (d *Daemon) adoptStub(s *sandboxState, c *network.Container, h handed) bool {
	kinds := []string{api.FileDNSPacket, api.FileDNSListener, api.FileDNSRules}
	fds := []int{-1, -1, -1}
	found := false
	for i, kind := range kinds {
		if fd, ok := h.take(api.SandboxFile{Kind: kind, Container: c.ID}); ok {
			fds[i], found = fd, true
		}
	}
	if !found {
		return false
	}
	st, err := engine.OpenStub(engine.StubFiles{Packet: fds[0], Listener: fds[1], Rules: fds[2]}, stubAddr.Addr())
	if err != nil {
		for _, kind := range kinds {
			d.drop(api.SandboxFile{Kind: kind, Container: c.ID})
		}
		d.settle()
		if !errors.Is(err, engine.ErrPartOfStub) {
			d.log.Warn("a DNS stub that was handed over is of no use", "container", c.Name, "error", err)
		}
		return false
	}
	s.stub = st
	d.keepStub(s)
	return true
}
