package daemon

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/handover"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/switch/tap"
)

// drainPatience is how long an end waits for answers to DNS queries that were sent on: longer than most servers take,
// and shorter than any client waits before it asks again.
const drainPatience = 250 * time.Millisecond

// A takeover replaces a running daemon by another one without a gap: the API's socket, published ports, TAPs, DNS stubs
// and connections pass from the old process to the new one. Package handover carries the descriptors.
//
//	old daemon                                         new daemon
//	serving                            <-----------    asks for the takeover
//	HandOver: copies of all descriptors  --------->    holds them, and uses none yet
//	Drain: answers the DNS queries that it has read
//	DetachFlows: connections of the bypass  ------>    holds them
//	Close: quiesce, teardown; ends         ------->    New: restore, attachReceived, resumeFlows
//	                                                   serving
//
// A failure of HandOver leaves the old daemon serving. What cannot be copied is left out: the new daemon opens it again
// from inside the sandbox. Between teardown and attachReceived frames wait in the TAPs, and connections in the queues
// of their listeners.

// HandOver puts copies of the descriptors that a successor needs into set: sockets of published ports, the descriptors
// that this daemon was started with, and those that lead into sandboxes.
func (d *Daemon) HandOver(set *handover.Set) error {
	if err := d.shared.HandOver(set); err != nil {
		return err
	}
	for _, s := range d.allRuntimes() {
		s.mu.Lock()
		err := s.copyTo(set)
		s.mu.Unlock()
		if err != nil {
			d.log.Debug("not handed over", "container", s.id, "error", err)
		}
	}
	return nil
}

// allRuntimes returns the runtimes of all containers.
func (d *Daemon) allRuntimes() []*containerRuntime {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.runtimes))
}

// copyTo puts copies of the descriptors that lead into the sandbox into set. The caller holds s.mu.
func (s *containerRuntime) copyTo(set *handover.Set) error {
	var errs []error
	for _, p := range s.attachments {
		if p.dev == nil {
			continue // a virtual machine's: the successor listens at the same place
		}
		fd, err := p.dev.Copy()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		set.Put(tapID(s.id, p.endpoint), fd)
	}
	if f := s.netns.Load(); f != nil {
		fd, err := sockio.Dup(f)
		if err == nil {
			set.Put(netnsID(s.id), fd)
		}
		errs = append(errs, err)
	}
	if s.stub != nil {
		copies, err := s.stubCopies()
		for id, fd := range copies {
			set.Put(id, fd)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// tapID names the TAP of a container's endpoint.
func tapID(container string, e *network.Endpoint) handover.ID {
	return handover.ID{Kind: handover.TAP, Container: container, Endpoint: e.ID, Name: e.Interface}
}

// netnsID names the network namespace of an attached container.
func netnsID(container string) handover.ID {
	return handover.ID{Kind: handover.NetNS, Container: container}
}

// stubID names a part of a container's DNS stub.
func stubID(kind handover.Kind, container string) handover.ID {
	return handover.ID{Kind: kind, Container: container}
}

// Drain stops reading DNS queries from sandboxes, whose sockets the successor has too, and waits for the answers to
// those that were read. Call it before Close.
func (d *Daemon) Drain() {
	for _, s := range d.allRuntimes() {
		s.mu.Lock()
		s.stub.Pause()
		s.mu.Unlock()
	}
	d.dns.Drain(drainPatience)
}

// quiesce stops reading the sandbox's TAPs, and returns when every frame that was read has been delivered. The caller
// holds s.mu.
func (s *containerRuntime) quiesce() {
	s.stub.Pause()
	for _, p := range s.attachments {
		p.port.Quiesce()
	}
}

// attachReceived connects containers to what the daemon before has handed over from their sandboxes. It reads from none
// before all are connected, so that no frame is for one that is not there yet. What is not used is closed: an interface
// that is open here could not be opened inside.
func (d *Daemon) attachReceived(containers []*network.Container, r *received) {
	defer d.discard(r)
	var begin []func()
	for _, c := range containers {
		if !ownNetwork(c) {
			continue
		}
		s := d.runtime(c.ID)
		s.mu.Lock()
		for _, e := range d.missing(s, c) {
			id := tapID(c.ID, e)
			fd, ok := r.Take(id)
			if !ok {
				continue
			}
			p, err := d.attachReceivedTAP(s, c, e, fd)
			if err != nil {
				d.removeStored(id)
				d.log.Warn("a TAP that was handed over is of no use", "container", c.Name, "interface", e.Interface,
					"error", err)
				continue
			}
			begin = append(begin, p.port.Start)
		}
		if d.takeStub(s, c, r) {
			begin = append(begin, func() { s.stub.Serve(d.dns, d.stubClient(c.ID), d.log) })
		}
		s.mu.Unlock()
	}
	for _, f := range begin {
		f()
	}
}

// attachReceivedTAP connects an endpoint by its TAP's descriptor, which it takes over, also when it fails.
func (d *Daemon) attachReceivedTAP(
	s *containerRuntime, c *network.Container, e *network.Endpoint, fd int,
) (*attachment, error) {
	f := os.NewFile(uintptr(fd), e.Interface)
	name := e.Interface
	if c.Moves {
		name = "" // it may have got another one meanwhile
	}
	if err := tap.Check(fd, name); err != nil {
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
	leave, err := d.joinVLAN(b, e.VLAN)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	dev, err := tap.Open(f, !offload(e))
	if err != nil {
		leave()
		return nil, err
	}
	p, err := d.attachTAP(s, c, e, b, dev)
	if err != nil {
		leave()
		return nil, errors.Join(err, dev.Close())
	}
	p.leave = leave
	return p, nil
}

// stubCopies returns copies of what the sandbox's stub consists of. They are the caller's.
func (s *containerRuntime) stubCopies() (map[handover.ID]int, error) {
	copies, err := s.stub.Copies()
	if err != nil {
		return nil, err
	}
	fds := map[handover.ID]int{}
	for kind, fd := range map[handover.Kind]int{
		handover.DNSPacket:   copies.Packet,
		handover.DNSListener: copies.Listener,
		handover.DNSRules:    copies.Rules,
	} {
		if fd >= 0 {
			fds[stubID(kind, s.id)] = fd
		}
	}
	return fds, nil
}

// takeStub says whether the container's stub was handed over, whole. What was not is of no use, and is removed from
// the store.
func (d *Daemon) takeStub(s *containerRuntime, c *network.Container, r *received) bool {
	kinds := []handover.Kind{handover.DNSPacket, handover.DNSListener, handover.DNSRules}
	fds := []int{-1, -1, -1}
	found := false
	for i, kind := range kinds {
		if fd, ok := r.Take(stubID(kind, c.ID)); ok {
			fds[i], found = fd, true
		}
	}
	if !found {
		return false
	}
	st, err := engine.OpenStub(engine.StubFiles{Packet: fds[0], Listener: fds[1], Rules: fds[2]}, stubAddrOf(c).Addr())
	if err != nil {
		for _, kind := range kinds {
			d.removeStored(stubID(kind, c.ID))
		}
		d.awaitStore()
		if !errors.Is(err, engine.ErrPartOfStub) {
			d.log.Warn("a DNS stub that was handed over is of no use", "container", c.Name, "error", err)
		}
		return false
	}
	s.stub = st
	d.storeStub(s)
	return true
}

// DetachFlows detaches the TCP connections that bypass the gateways, for another daemon to resume, and begins no more.
// The descriptors are the caller's. Call it before Close.
func (d *Daemon) DetachFlows() []handover.Flow {
	var list []handover.Flow
	for _, b := range d.bridgeList() {
		for _, st := range b.DetachFlows() {
			state, err := json.Marshal(st)
			if err != nil {
				d.log.Warn("connection not handed over", "inside", st.Inside, "outside", st.Outside, "error", err)
				st.Close()
				continue
			}
			fds := st.FDs()
			list = append(list, handover.Flow{Network: b.record.ID, State: state, Count: len(fds), FDs: fds})
		}
	}
	return list
}

// resumeFlows takes up connections that another daemon has detached. Those of containers and networks that are gone are
// reset.
func (d *Daemon) resumeFlows(flows []handover.Flow) {
	for _, f := range flows {
		st := new(forwarder.State)
		err := json.Unmarshal(f.State, st)
		if err == nil {
			err = st.SetFDs(f.FDs)
		}
		if err != nil {
			d.log.Warn("a connection that was handed over is of no use", "error", err)
			f.Close()
			continue
		}
		b := d.bridge(f.Network)
		if b == nil {
			st.Close()
			continue
		}
		if err := b.ResumeFlow(st); err != nil {
			d.log.Warn("a connection that was handed over is not resumed", "inside", st.Inside, "outside", st.Outside,
				"error", err)
		}
	}
}

// received holds the descriptors that New got with its Config. New owns them, and closes on every return those that
// were not taken. Take removes a descriptor, which is the
// caller's then.
type received struct {
	*handover.Set
	flows []handover.Flow
}

// takeReceived moves all descriptors of cfg out of it.
func takeReceived(cfg *Config) *received {
	r := &received{cfg.Received, cfg.Flows}
	cfg.Received, cfg.Flows = nil, nil
	return r
}

func (r *received) takeFlows() []handover.Flow {
	list := r.flows
	r.flows = nil
	return list
}

// close closes what was not taken.
func (r *received) close() {
	flows := r.takeFlows()
	for i := range flows {
		flows[i].Close()
	}
	r.Set.Close()
}

// addReceivedPorts gives the sockets of published ports to the table of host ports, which owns them from then on.
func (d *Daemon) addReceivedPorts(r *received) {
	for _, fd := range r.TakeKind(handover.Inherited) {
		at, proto, err := d.shared.Inherit(fd)
		if err != nil {
			d.log.Warn("a socket that the daemon was started with is of no use", "error", err)
			continue
		}
		d.log.Info("published ports can use an inherited socket", "address", at, "proto", proto)
	}
	d.shared.SetFDStore(d.cfg.FDStore)
	for _, fd := range r.TakeKind(handover.Published) {
		if err := d.shared.Adopt(fd); err != nil {
			d.log.Warn("a socket that was handed over is of no use", "error", err)
		}
	}
}
