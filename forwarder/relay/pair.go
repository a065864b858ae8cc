package relay

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/faults"
	"github.com/usernet/usernet/internal/sockio"
)

// pair is two sockets of the kernel between which the reactor copies.
//
// Where a piece fills the reactor's buffer, or the destination does not take all of it, the session goes over to two
// goroutines that splice (toSplice). It never comes back.
type pair struct {
	s      *Session
	closed atomic.Bool // by end, detach or toSplice
	ends   [2]pairEnd  // the container's, the host's
}

// pairEnd is one socket of a pair.
type pairEnd struct {
	sockio.Socket
	p     *pair
	ended atomic.Bool // nothing more comes from it
}

// outcome is the result of an attempt to copy.
type outcome int

const (
	goesOn  outcome = iota
	ended           // both halves have ended
	broken          // one half has failed
	tooMuch         // the session has more data than the reactor should copy
)

var _ sockio.Isolated = (*pairEnd)(nil)

// Logger implements sockio.Isolated.
func (e *pairEnd) Logger() *slog.Logger { return e.p.s.loop.log }

// Fail implements sockio.Isolated.
func (e *pairEnd) Fail() { e.p.end(false) }

// HandleEvents implements sockio.Handler.
func (e *pairEnd) HandleEvents(uint32) {
	switch what, rest := e.copy(); what {
	case ended:
		e.p.end(true)
	case broken:
		e.p.end(false)
	case tooMuch:
		e.p.toSplice(e, rest)
	}
}

// other is the other end.
func (e *pairEnd) other() *pairEnd {
	if e == &e.p.ends[0] {
		return &e.p.ends[1]
	}
	return &e.p.ends[0]
}

// copy reads once and writes what was read. rest is what the destination did not take, in the reactor's buffer.
func (e *pairEnd) copy() (what outcome, rest []byte) {
	to := e.other()
	// An error: it has just been closed.
	_ = e.Use(func(from int) error {
		return to.Use(func(dst int) error {
			what, rest = e.copyTo(to, from, dst)
			return nil
		})
	})
	return what, rest
}

// copyTo is copy with both descriptors.
func (e *pairEnd) copyTo(to *pairEnd, from, dst int) (what outcome, rest []byte) {
	s := e.p.s
	if e.ended.Load() {
		return broken, nil // only errors and hang-ups are reported then (epoll_ctl(2))
	}
	buf := s.loop.reactor.Buffer()
	n, err := sockio.Read(from, buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return goesOn, nil
	case err != nil:
		return broken, nil
	case n == 0:
		return e.endHalf(to, from, dst), nil
	}
	if faults.Enabled {
		faults.Check(faults.Relay, buf[:n])
	}
	moved := &s.bytesOut
	if to == &e.p.ends[0] {
		moved = &s.bytesIn
	}
	m, err := sockio.Write(dst, buf[:n])
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
		return broken, nil
	}
	moved.Add(uint64(m))
	if rest = buf[m:n]; len(rest) > 0 || n == len(buf) {
		return tooMuch, rest
	}
	return goesOn, nil
}

// endHalf passes on the end of a half (FIN).
func (e *pairEnd) endHalf(to *pairEnd, from, dst int) outcome {
	e.ended.Store(true)
	e.p.s.halfClosed.Store(true)
	if to.ended.Load() {
		return ended
	}
	e.p.s.loop.reactor.Change(from, 0)
	if sockio.CloseWrite(dst) != nil {
		return broken
	}
	return goesOn
}

// end closes both sockets and ends the session. deliver: what is queued is still delivered; else both are reset.
func (p *pair) end(deliver bool) {
	if !p.closed.CompareAndSwap(false, true) {
		return
	}
	for i := range p.ends {
		e := &p.ends[i]
		if deliver {
			_ = e.Use(func(fd int) error { return sockio.SetLinger(fd, false) })
		}
		e.Close(p.s.loop.reactor)
	}
	p.s.ended()
}

// abort implements carrier.
func (p *pair) abort() { p.end(false) }

// detach implements carrier. No handler runs meanwhile, so nothing is between the two sockets.
func (p *pair) detach(context.Context) (d [2]Direction, err error) {
	if !p.closed.CompareAndSwap(false, true) {
		return d, errEnded
	}
	for i := range p.ends {
		e := &p.ends[i]
		d[i] = Direction{FD: e.Release(p.s.loop.reactor), Ended: e.ended.Load(), Pending: -1}
	}
	p.s.ended()
	return d, nil
}

// toSplice gives the session to two goroutines. rest is what was read from e and not written yet.
func (p *pair) toSplice(e *pairEnd, rest []byte) {
	if !p.closed.CompareAndSwap(false, true) {
		return
	}
	var halves [2]half
	for i := range p.ends {
		halves[i].ended = p.ends[i].ended.Load()
		if e == &p.ends[i] {
			halves[i].pending.bytes = append([]byte(nil), rest...)
		}
	}
	r := p.s.loop.reactor
	p.s.splice(p.ends[0].Release(r), p.ends[1].Release(r), halves)
}
