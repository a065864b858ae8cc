package forwarder

import (
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/faults"
	"github.com/usernet/usernet/internal/sockio"
)

// pair relays a flow between two sockets of the kernel in the reactor: it needs no goroutine, and three system calls for each piece
// of data. That suits requests, answers and the beginning of every stream.
//
// Where a piece fills the reactor's buffer, or the destination does not take all of it, the flow goes over to two goroutines that
// splice (toSplice). It never comes back.
//
//	          both halves ended
//	pair ----------------------> closed (what was written is delivered)
//	 | | an error, abort
//	 | +-----------------------> closed (reset)
//	 | a full buffer, a short write        both halves ended
//	 +--------------------------> spliced ------------------> closed (delivered)
//	                                | an error, abort
//	                                +-----------------------> closed (reset)
//	                                | Release
//	                                +-----------------------> State of another process
type pair struct {
	fl   *flow
	over atomic.Bool
	ends [2]pairEnd // the container's, the host's
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
	tooMuch         // the flow has more data than the reactor should copy
)

// carry relays between two connected sockets, which it owns from here on, until both halves have ended.
func (f *Forwarder) carry(fl *flow, inside, host int) {
	p := &pair{fl: fl}
	for i, fd := range [2]int{inside, host} {
		p.ends[i].p = p
		p.ends[i].Open(fd)
	}
	if !f.trackFlow(fl) || !fl.setEnds(func() { fl.pair = p }) {
		p.end(false)
		return
	}
	for i := range p.ends {
		e := &p.ends[i]
		if err := e.Use(func(fd int) error { return f.reactor.Add(fd, e) }); err != nil {
			p.end(false) // the forwarder ends
			return
		}
	}
}

// handleEvents implements sockio.Handler.
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
	fl := e.p.fl
	if e.ended.Load() {
		return broken, nil // only errors and hang-ups are reported then (epoll_ctl(2))
	}
	buf := fl.f.reactor.Buffer()
	n, err := unix.Read(from, buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return goesOn, nil
	case err != nil:
		return broken, nil
	case n == 0:
		return e.end(to, from, dst), nil
	}
	if faults.Enabled {
		faults.Check(faults.Relay, buf[:n])
	}
	moved := &fl.bytesOut
	if to == &e.p.ends[0] {
		moved = &fl.bytesIn
	}
	m, err := unix.Write(dst, buf[:n])
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
		return broken, nil
	}
	moved.Add(uint64(max(m, 0)))
	if rest = buf[max(m, 0):n]; len(rest) > 0 || n == len(buf) {
		return tooMuch, rest
	}
	return goesOn, nil
}

// end passes on the end of a half (FIN).
func (e *pairEnd) end(to *pairEnd, from, dst int) outcome {
	e.ended.Store(true)
	e.p.fl.halfClosed.Store(true)
	if to.ended.Load() {
		return ended
	}
	e.p.fl.f.reactor.Change(from, 0)
	if unix.Shutdown(dst, unix.SHUT_WR) != nil {
		return broken
	}
	return goesOn
}

// end closes both sockets and removes the flow. well: what is queued is still delivered; else both are reset.
func (p *pair) end(well bool) {
	if !p.over.CompareAndSwap(false, true) {
		return
	}
	for i := range p.ends {
		e := &p.ends[i]
		if well {
			_ = e.Use(func(fd int) error { return sockio.SetLinger(fd, false) })
		}
		e.Close(p.fl.f.reactor)
	}
	p.fl.f.removeFlow(p.fl)
}

// toSplice gives the flow to two goroutines. left is what was read from e and not written yet.
func (p *pair) toSplice(e *pairEnd, left []byte) {
	if !p.over.CompareAndSwap(false, true) {
		return
	}
	var halves [2]half
	for i := range p.ends {
		halves[i].ended = p.ends[i].ended.Load()
		if e == &p.ends[i] {
			halves[i].rest.bytes = append([]byte(nil), left...)
		}
	}
	r := p.fl.f.reactor
	p.fl.splice(p.ends[0].Release(r), p.ends[1].Release(r), halves)
}

// half is one direction of a flow that is spliced.
type half struct {
	ended bool
	rest  rest
}

// splice relays between two sockets, which it owns from here on, with a goroutine for each half, until both halves have ended or the
// flow is stopped.
func (fl *flow) splice(inside, host int, halves [2]half) {
	f := fl.f
	direct, outer := sockio.NewConn(inside), sockio.NewConn(host)
	if !fl.setEnds(func() { fl.pair, fl.direct, fl.host = nil, direct, outer }) {
		direct.Reset()
		outer.Reset()
		f.removeFlow(fl)
		return
	}
	copy := func(i int, dst, src *sockio.Conn, moved *atomic.Uint64) {
		h := &halves[i]
		if h.ended {
			return
		}
		st := &stall{interrupt: fl.abort}
		st.watch = func() { st.watchSocket(f.reactor, src.FD()) }
		err := fl.call(func() error { return splice(dst, src, &h.rest, moved, st) })
		st.unwatch()
		switch {
		case err == nil:
			h.ended = true
			fl.halfClosed.Store(true)
		case !errors.Is(err, os.ErrDeadlineExceeded): // an error in one direction ends both
			fl.abort()
		}
	}
	go func() {
		defer f.removeFlow(fl)
		done := make(chan struct{})
		go func() { copy(0, outer, direct, &fl.bytesOut); close(done) }()
		copy(1, direct, outer, &fl.bytesIn)
		<-done
		fl.endSplice(halves)
	}()
}

// endSplice is called when both goroutines have ended: both halves have ended, or they were stopped, or the flow was aborted.
func (fl *flow) endSplice(halves [2]half) {
	fl.mu.Lock()
	well := halves[0].ended && halves[1].ended
	fl.over = true
	switch {
	case !fl.stopping:
	case well || fl.aborted:
		fl.left <- noState
	default:
		fl.left <- fl.detachEnds(&halves)
	}
	fl.mu.Unlock()
	if well {
		fl.direct.Finish()
		fl.host.Finish()
	} else {
		fl.direct.Reset() // of copies, where it was left: nothing happens to the connections
		fl.host.Reset()
	}
	for i := range halves {
		if p := halves[i].rest.p; p != nil {
			p.close()
		}
	}
}
