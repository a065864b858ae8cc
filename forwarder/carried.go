package forwarder

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// Carried is a TCP connection between two sockets of the kernel, in a form that another process can carry on.
type Carried struct {
	Direction                 string
	Inside, Outside, HostSide netip.AddrPort
	Created                   time.Time
	BytesIn, BytesOut         uint64
	Halves                    [2]Half // what the container sends, what the host's end does
}

// Half is one direction of a connection.
type Half struct {
	FD    int `json:"-"` // the socket that it comes from
	Ended bool
	// What was read and could not be passed on yet: a pipe (-1: none), and how many bytes are in it.
	Rest  int `json:"-"`
	Bytes int64
}

// FDs are all descriptors, in an order that SetFDs knows.
func (c *Carried) FDs() []int {
	fds := []int{c.Halves[0].FD, c.Halves[1].FD}
	for _, h := range c.Halves {
		if h.Rest >= 0 {
			fds = append(fds, h.Rest)
		}
	}
	return fds
}

// SetFDs gives a connection that was read the descriptors that FDs had, or says that they are not of it.
func (c *Carried) SetFDs(fds []int) error {
	want := 2
	for i := range c.Halves {
		c.Halves[i].Rest = -1
		if c.Halves[i].Bytes > 0 {
			want++
		}
	}
	if len(fds) != want {
		return fmt.Errorf("a connection of %d descriptors came with %d", want, len(fds))
	}
	c.Halves[0].FD, c.Halves[1].FD, fds = fds[0], fds[1], fds[2:]
	for i := range c.Halves {
		if c.Halves[i].Bytes > 0 {
			c.Halves[i].Rest, fds = fds[0], fds[1:]
		}
	}
	return nil
}

// noState stands for a flow that cannot be handed over.
var noState = [2]Half{{FD: -1, Rest: -1}, {FD: -1, Rest: -1}}

// Close closes the descriptors, which resets the connection.
func (c *Carried) Close() {
	for i := range c.Halves {
		h := &c.Halves[i]
		for _, fd := range []*int{&h.FD, &h.Rest} {
			if *fd >= 0 {
				_ = unix.Close(*fd)
			}
			*fd = -1
		}
	}
}

// detachTimeout bounds how long a goroutine may take to stop: it is in a system call that does not wait.
const detachTimeout = time.Second

// Release ends the forwarder's part in all connections between two sockets of the kernel, and returns them. None is begun
// from here on: what asks for one is left without an answer, or in the queue of its listener.
func (f *Forwarder) Release() []*Carried {
	f.mu.Lock()
	f.releasing = true
	ports := slices.Collect(maps.Keys(f.ports))
	for _, p := range ports {
		p.stayPaused()
	}
	f.mu.Unlock()
	for _, p := range ports {
		_ = p.sock.Use(func(fd int) error { f.reactor.Remove(fd); return nil })
	}
	f.reactor.Barrier() // connections that were accepted are in f.flows now
	f.mu.Lock()
	f.released = true
	flows := slices.Collect(maps.Keys(f.flows))
	f.mu.Unlock()
	var list []*Carried
	f.reactor.WithDispatchStopped(func() { // or a flow could go over to splicing between the two loops
		for _, fl := range flows {
			if c := fl.releasePair(); c != nil {
				list = append(list, c)
			}
		}
	})
	for _, fl := range flows {
		fl.stop()
	}
	for _, fl := range flows {
		if c := fl.releaseSpliced(); c != nil {
			list = append(list, c)
		}
	}
	return list
}

func (f *Forwarder) isReleased() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.released
}

// stop makes the goroutines of a spliced flow return with its state in fl.left.
func (fl *flow) stop() {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.direct != nil && !fl.aborted && !fl.over {
		fl.stopping, fl.left = true, make(chan [2]Half, 1)
		fl.direct.Interrupt()
		fl.host.Interrupt()
	}
}

// releasePair returns a flow that the reactor carries, and ends it here; nil: it does not. The reactor pauses.
func (fl *flow) releasePair() *Carried {
	fl.mu.Lock()
	p := fl.pair
	fl.mu.Unlock()
	if p == nil || !p.over.CompareAndSwap(false, true) {
		return nil
	}
	c := fl.carried()
	for i := range p.ends {
		e := &p.ends[i]
		c.Halves[i] = Half{FD: e.Release(fl.f.reactor), Ended: e.ended.Load(), Rest: -1}
	}
	fl.f.removeFlow(fl)
	return c
}

// releaseSpliced returns a flow whose goroutines were stopped; nil: they were not, or left nothing.
func (fl *flow) releaseSpliced() *Carried {
	fl.mu.Lock()
	stopped := fl.stopping
	fl.mu.Unlock()
	if !stopped {
		return nil
	}
	select {
	case halves := <-fl.left:
		if halves[0].FD < 0 {
			return nil
		}
		c := fl.carried() // what they have moved is counted now
		c.Halves = halves
		return c
	case <-time.After(detachTimeout):
		return nil
	}
}

// carried is the flow without its halves.
func (fl *flow) carried() *Carried {
	return &Carried{Direction: fl.direction, Inside: fl.inside, Outside: fl.outside, HostSide: fl.hostSide, Created: fl.created,
		BytesIn: fl.bytesIn.Load(), BytesOut: fl.bytesOut.Load()}
}

// detachEnds returns copies of a stopped flow's sockets, and what was read from one and not written to the other.
func (fl *flow) detachEnds(halves *[2]half) [2]Half {
	var list [2]Half
	for i, c := range [2]*sockio.Conn{fl.direct, fl.host} {
		fd, _ := sockio.Dup(c) // -1 is looked at below
		list[i] = Half{FD: fd, Rest: -1, Ended: halves[i].ended}
	}
	for i := range halves {
		list[i].Rest, list[i].Bytes = halves[i].rest.pipe()
		if list[i].Rest < 0 && list[i].Bytes > 0 || list[0].FD < 0 || list[1].FD < 0 {
			(&Carried{Halves: list}).Close()
			return noState
		}
	}
	return list
}

// CarryOn takes up a connection that another process has released. It owns the descriptors.
func (f *Forwarder) CarryOn(c *Carried) error {
	fl := &flow{f: f, direction: c.Direction, inside: c.Inside, outside: c.Outside, hostSide: c.HostSide}
	if !f.addFlow(fl, 0) { // it has its descriptors
		c.Close()
		return os.ErrClosed
	}
	if !c.Created.IsZero() {
		fl.created = c.Created
	}
	fl.bytesIn.Store(c.BytesIn)
	fl.bytesOut.Store(c.BytesOut)
	fl.halfClosed.Store(c.Halves[0].Ended || c.Halves[1].Ended)
	var halves [2]half
	var errs []error
	for i, h := range c.Halves {
		rest, err := readPipe(h.Rest, h.Bytes)
		errs = append(errs, err, unix.SetNonblock(h.FD, true))
		halves[i] = half{ended: h.Ended, rest: rest}
	}
	err := errors.Join(errs...)
	if err == nil && !f.trackFlow(fl) {
		err = os.ErrClosed
	}
	if err != nil {
		f.removeFlow(fl)
		for i := range c.Halves {
			c.Halves[i].Rest = -1 // read, and closed
		}
		c.Close()
		return err
	}
	// Spliced at once: the reactor could not take what was read and not written.
	fl.splice(c.Halves[0].FD, c.Halves[1].FD, halves)
	return nil
}
