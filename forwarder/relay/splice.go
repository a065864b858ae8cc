package relay

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"github.com/usernet/usernet/internal/sockio"
)

// splicing is two sockets of the kernel between which two goroutines splice, one for each half.
type splicing struct {
	s      *Session
	ends   [2]*sockio.Conn // the container's, the host's
	halves [2]half         // of which each goroutine uses one

	handing struct {
		sync.Mutex
		done bool              // the goroutines have ended
		to   chan [2]Direction // who detaches the session; nil: nobody does
	}
}

// half is one direction of a session that is spliced.
type half struct {
	ended   bool
	pending pending
}

// splice relays between two sockets, which it owns from here on, until both halves have ended or the session is aborted
// or detached.
func (s *Session) splice(inside, host int, halves [2]half) {
	sp := &splicing{s: s, ends: [2]*sockio.Conn{sockio.NewConn(inside), sockio.NewConn(host)}, halves: halves}
	if !s.setCarrier(sp) {
		sp.close(false)
		s.ended()
		return
	}
	go sp.run()
}

func (sp *splicing) run() {
	done := make(chan struct{})
	go func() {
		sp.copy(0, sp.ends[1], sp.ends[0], &sp.s.bytesOut)
		close(done)
	}()
	sp.copy(1, sp.ends[0], sp.ends[1], &sp.s.bytesIn)
	<-done
	sp.end()
}

// copy moves one half. An error in it ends both.
func (sp *splicing) copy(i int, dst, src *sockio.Conn, moved *atomic.Uint64) {
	h, s := &sp.halves[i], sp.s
	if h.ended {
		return
	}
	m := mover{pipes: s.loop.pipes, dst: dst, src: src, pending: &h.pending, moved: moved}
	m.stall.interrupt = s.Abort
	m.stall.watch = func() { m.stall.watchSocket(s.loop.reactor, src.FD()) }
	err := s.call(m.move)
	m.stall.unwatch()
	switch {
	case err == nil:
		h.ended = true
		s.halfClosed.Store(true)
	case !errors.Is(err, os.ErrDeadlineExceeded): // which is an interruption by detach or abort
		s.Abort()
	}
}

// abort implements carrier.
func (sp *splicing) abort() { sp.interrupt() }

func (sp *splicing) interrupt() {
	for _, c := range sp.ends {
		c.Interrupt()
	}
}

// detach implements carrier.
func (sp *splicing) detach(ctx context.Context) (d [2]Direction, err error) {
	to := make(chan [2]Direction, 1)
	sp.handing.Lock()
	if sp.handing.done || sp.handing.to != nil {
		sp.handing.Unlock()
		return d, errEnded
	}
	sp.handing.to = to
	sp.handing.Unlock()
	sp.interrupt()
	select {
	case d = <-to:
	case <-ctx.Done(): // a goroutine is in a system call for long; it ends by itself, and the connection is reset
		sp.handing.Lock()
		defer sp.handing.Unlock()
		if !sp.handing.done {
			sp.handing.to = nil
			return noDirections, ctx.Err()
		}
		d = <-to // just in time
	}
	if d[0].FD < 0 {
		return d, errEnded
	}
	return d, nil
}

// end is called when both goroutines have ended: both halves have ended, or they were interrupted.
func (sp *splicing) end() {
	deliver := sp.halves[0].ended && sp.halves[1].ended
	sp.handing.Lock()
	sp.handing.done = true
	switch {
	case sp.handing.to == nil:
	case deliver || sp.s.aborted():
		sp.handing.to <- noDirections
	default:
		sp.handing.to <- sp.directions()
	}
	sp.handing.Unlock()
	sp.close(deliver) // of copies, where it was detached: nothing happens to the connections
	sp.s.ended()
}

// close closes both sockets. deliver: what is queued is still delivered; else both are reset.
func (sp *splicing) close(deliver bool) {
	for _, c := range sp.ends {
		if deliver {
			c.Finish()
		} else {
			c.Reset()
		}
	}
	for i := range sp.halves {
		sp.halves[i].pending.close()
	}
}

// directions returns copies of the sockets, and what was read from one and not written to the other; noDirections where
// there are no descriptors for that.
func (sp *splicing) directions() [2]Direction {
	d := noDirections
	for i, c := range sp.ends {
		d[i].FD, _ = sockio.Dup(c) // -1 is looked at below
		d[i].Ended = sp.halves[i].ended
	}
	for i := range sp.halves {
		d[i].Pending, d[i].Bytes = sp.halves[i].pending.release(sp.s.loop.pipes)
		if d[i].Pending < 0 && d[i].Bytes > 0 || d[0].FD < 0 || d[1].FD < 0 {
			closeDirections(d)
			return noDirections
		}
	}
	return d
}
