package daemon

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"github.com/usernet/usernet/bypass"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/ports"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/switch/tap"
)

// containerRuntime has what the daemon holds open for one running container. All of it can be made again from the
// model's record, as it is after a restart.
type containerRuntime struct {
	id string

	// files is held while hosts and resolv.conf are sent, so that the latest version arrives last.
	files sync.Mutex

	// netns is the network namespace of a container that was attached by a descriptor; nil for all others.
	netns atomic.Pointer[os.File]

	mu          sync.Mutex             // held while the container is changed; guards the fields below
	attachments map[string]*attachment // by endpoint id
	bound       ports.List             // published ports, as they are bound
	boundOn     *bridge                // where; nil before the first one
	stub        *engine.Stub           // nil: none
	unstoreStub func()                 // removes the stub from the service manager's store; nil: it is not there
	sockets     *bypass.Pool           // of the bypass; nil before the first endpoint
	stop        context.CancelFunc     // ends the watch; nil before it starts
	unwatch     func()                 // ends the watchdog's watch of mu
	removed     chan struct{}          // closed when the container has been removed
	again       restarting

	health   atomic.Pointer[network.Health] // nil: nothing was reported since it was started
	oomKills atomic.Uint64                  // processes killed for lack of memory since then that were told of

	// life is the one from now to the container's next end; each end begins another.
	life atomic.Pointer[life]
}

// life is a container's time up to one end of it.
type life struct {
	code  int           // exit status; set before ended is closed
	ended chan struct{} // closed when the container has ended
}

func newLife() *life { return &life{ended: make(chan struct{})} }

// attachment connects one endpoint to its network: a TAP in the sandbox, or a virtual machine's socket, and the switch
// port that it is read into.
type attachment struct {
	bridge   *bridge
	port     *engine.Attachment // owns dev
	dev      *tap.Device        // nil: a virtual machine has the endpoint
	endpoint *network.Endpoint

	unstore func() // removes dev from the service manager's store; nil: it is not there
	leave   func() // ends the use of a VLAN outside
}

// runtime returns the runtime of a container, and makes an empty one where there is none. One of a container that has
// been removed is the caller's alone.
func (d *Daemon) runtime(id string) *containerRuntime {
	d.mu.Lock()
	s := d.runtimes[id]
	if s != nil {
		d.mu.Unlock()
		return s
	}
	s = &containerRuntime{
		id:          id,
		attachments: map[string]*attachment{},
		removed:     make(chan struct{}),
	}
	s.life.Store(newLife())
	s.unwatch = d.watchContainer(s)
	d.runtimes[id] = s
	d.mu.Unlock()
	// Its removal may have come before, and then forgets no runtime that was made after it.
	if _, err := d.model.ContainerWithoutPorts(id); errors.Is(err, errdefs.ErrNotFound) {
		d.forget(s)
	}
	return s
}

// forget has no runtime any more for a container that has been removed, and tells those who wait for that.
func (d *Daemon) forget(s *containerRuntime) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.runtimes[s.id] == s {
		delete(d.runtimes, s.id)
		close(s.removed)
	}
	s.unwatch()
}

// setup gives the sandbox of c what the model says: interfaces, routes, DNS stub, published ports. What is already
// there stays. On an error it tears the runtime down, and takes what it has made out of a sandbox that something else
// owns. The caller holds s.mu.
func (d *Daemon) setup(ctx context.Context, s *containerRuntime, c *network.Container) (err error) {
	defer func() {
		if err != nil {
			var made []string // not those of others, which may be why it fails
			for _, e := range c.Endpoints {
				if s.attachments[e.ID] != nil {
					made = append(made, e.Interface)
				}
			}
			s.discardMoving(c)
			d.teardown(s)
			if c.Attached { // they would outlast their descriptors
				d.removeInterfaces(c, made)
			}
		}
	}()
	if err := d.attachMissing(ctx, s, c); err != nil {
		return err
	}
	return d.publishAll(ctx, s, c)
}

// teardown closes all descriptors that lead into a sandbox, and waits for the goroutines that read them. The caller
// holds s.mu.
func (d *Daemon) teardown(s *containerRuntime) {
	d.unpublishAll(s)
	if len(s.attachments) > 0 || s.stub != nil {
		defer d.awaitStore()
	}
	for id := range s.attachments {
		s.detachEndpoint(id)
	}
	s.closeStub()
	if s.sockets != nil {
		s.sockets.Close()
		s.sockets = nil
	}
}

// closeStub closes the DNS stub, where there is one. The caller holds s.mu.
func (s *containerRuntime) closeStub() {
	s.stub.Close()
	s.stub = nil
	if s.unstoreStub != nil {
		s.unstoreStub()
		s.unstoreStub = nil
	}
}

func (d *Daemon) networkByID(id string) *network.Network {
	n, err := d.model.Network(id)
	if err != nil {
		return nil
	}
	return n
}

// lockContainer finds a container and locks its runtime, which the caller unlocks. The record is as it is under the
// lock, and without ports. On an error nothing is locked.
func (d *Daemon) lockContainer(ref string) (*containerRuntime, *network.Container, error) {
	c, err := d.model.ContainerWithoutPorts(ref)
	if err != nil {
		return nil, nil, err
	}
	s := d.runtime(c.ID)
	s.mu.Lock()
	if c, err = d.model.ContainerWithoutPorts(c.ID); err != nil {
		s.mu.Unlock()
		return nil, nil, err
	}
	return s, c, nil
}
