package forwarder

import (
	"context"
	"net/netip"
	"os"
	"time"

	"github.com/usernet/usernet/forwarder/relay"
)

// State is a TCP connection that bypasses the gateway, in a form that another process can resume: as JSON, with
// descriptors beside it. Who has it owns these.
type State struct {
	Direction                 string
	Inside, Outside, HostSide netip.AddrPort
	Created                   time.Time
	Path                      string // PathSockets, or "": PathBypass
	relay.State
}

// detachTimeout bounds how long one flow may take to stop: what carries it is in a system call that does not wait.
const detachTimeout = time.Second

// DetachFlows ends the forwarder's part in all connections between two sockets of the kernel, and returns them. None is
// begun from here on: what asks for one is left without an answer, or in the queue of its listener.
func (f *Forwarder) DetachFlows() []*State {
	f.publisher.Stop() // connections that were accepted are in f.flows now
	f.mu.Lock()
	f.detached = true
	flows := f.flows.all()
	f.mu.Unlock()
	var list []*State
	for _, fl := range flows {
		if st := fl.detach(); st != nil {
			list = append(list, st)
		}
	}
	return list
}

// detach ends a flow here and returns it; nil: it does not bypass the gateway, or has ended.
func (fl *flow) detach() *State {
	s, bypass := fl.session()
	if !bypass {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), detachTimeout)
	defer cancel()
	st, err := s.Detach(ctx)
	if err != nil {
		return nil
	}
	return &State{
		Direction: fl.direction,
		Inside:    fl.inside,
		Outside:   fl.outside,
		HostSide:  fl.getHostSide(),
		Created:   fl.created,
		Path:      fl.path,
		State:     st,
	}
}

func (f *Forwarder) isDetached() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.detached
}

// ResumeFlow takes up a connection that another process has detached. It owns the descriptors, also where it fails.
func (f *Forwarder) ResumeFlow(st *State) error {
	fl := &flow{f: f, direction: st.Direction, inside: st.Inside, outside: st.Outside, hostSide: st.HostSide}
	fl.path, fl.resumed = st.Path, true
	if f.addFlow(fl, 0) != nil { // it has its descriptors
		st.Close()
		return os.ErrClosed
	}
	if !st.Created.IsZero() {
		fl.created = st.Created
	}
	if !f.trackFlow(fl) {
		st.Close()
		f.removeFlow(fl)
		return os.ErrClosed
	}
	s, err := f.loop.Resume(st.State, fl.options())
	if err != nil {
		f.removeFlow(fl)
		return err
	}
	fl.setSession(s, true)
	return nil
}
