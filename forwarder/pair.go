package forwarder

import (
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/faults"
)

// A pair is a flow between two sockets of the kernel of which the reactor copies what comes, as long as that is little:
// requests, answers, the beginning of everything. It needs no goroutine, and each piece three system calls.
//
// Where a piece fills the reactor's buffer, or cannot be written at once, two goroutines take over (flow.splice).
type pair struct {
	fl   *flow
	over atomic.Bool
	ends [2]pairEnd // the container's, the host's
}

// pairEnd is one socket of a pair.
type pairEnd struct {
	socket
	p     *pair
	ended atomic.Bool // nothing more comes from it
}

// outcome is what became of the attempt to copy.
type outcome int

const (
	goesOn  outcome = iota
	ended           // both halves have
	broken          // a half has
	tooMuch         // for the reactor
)

// carry copies between two connected sockets, which become fl's, until both halves have ended.
func (f *Forwarder) carry(fl *flow, inside, host int) {
	p := &pair{fl: fl}
	for i, fd := range [2]int{inside, host} {
		p.ends[i].p, p.ends[i].fd = p, fd
	}
	if !f.live(fl) || !fl.set(func() { fl.pair = p }) {
		p.end(false)
		return
	}
	for i := range p.ends {
		e := &p.ends[i]
		if err := e.use(func(fd int) error { return f.reactor.add(fd, e) }); err != nil {
			p.end(false) // the forwarder ends
			return
		}
	}
}

// ready implements ready.
func (e *pairEnd) ready(uint32) {
	switch what, rest := e.copy(); what {
	case ended:
		e.p.end(true)
	case broken:
		e.p.end(false)
	case tooMuch:
		e.p.promote(e, rest)
	}
}

// other is the other end.
func (e *pairEnd) other() *pairEnd {
	if e == &e.p.ends[0] {
		return &e.p.ends[1]
	}
	return &e.p.ends[0]
}

// copy passes on what has come. What cannot be written at once is the rest, in the reactor's buffer.
func (e *pairEnd) copy() (what outcome, rest []byte) {
	fl, to := e.p.fl, e.other()
	e.mu.RLock()
	defer e.mu.RUnlock()
	to.mu.RLock()
	defer to.mu.RUnlock()
	if e.fd < 0 || to.fd < 0 {
		return goesOn, nil // it has just been closed
	}
	if e.ended.Load() {
		return broken, nil // only errors and hang-ups are reported then (epoll_ctl(2))
	}
	buf := fl.f.reactor.buffer()
	n, err := unix.Read(e.fd, buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return goesOn, nil
	case err != nil:
		return broken, nil
	case n == 0:
		return e.end(to), nil
	}
	if faults.Enabled {
		faults.Check(faults.Relay, buf[:n])
	}
	moved := &fl.bytesOut
	if to == &e.p.ends[0] {
		moved = &fl.bytesIn
	}
	m, err := unix.Write(to.fd, buf[:n])
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
		return broken, nil
	}
	moved.Add(uint64(max(m, 0)))
	if rest = buf[max(m, 0):n]; len(rest) > 0 || n == len(buf) {
		return tooMuch, rest
	}
	return goesOn, nil
}

// end passes on that nothing more comes. The caller holds both ends.
func (e *pairEnd) end(to *pairEnd) outcome {
	e.ended.Store(true)
	e.p.fl.halfClosed.Store(true)
	if to.ended.Load() {
		return ended
	}
	e.p.fl.f.reactor.change(e.fd, 0)
	if unix.Shutdown(to.fd, unix.SHUT_WR) != nil {
		return broken
	}
	return goesOn
}

// end closes both sockets and ends the flow: with what is on its way, or with resets.
func (p *pair) end(well bool) {
	if !p.over.CompareAndSwap(false, true) {
		return
	}
	for i := range p.ends {
		e := &p.ends[i]
		if well {
			_ = e.use(func(fd int) error { return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{}) })
		}
		e.close(p.fl.f.reactor)
	}
	p.fl.f.finished(p.fl)
}

// promote gives the flow to two goroutines. What e has read and could not pass on is left.
func (p *pair) promote(e *pairEnd, left []byte) {
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
	p.fl.splice(p.ends[0].release(r), p.ends[1].release(r), halves)
}

// half is one direction of a flow that is spliced.
type half struct {
	ended bool
	rest  rest
}

// splice has two goroutines copy between the sockets inside and host until both halves have ended, or the flow is stopped.
func (fl *flow) splice(inside, host int, halves [2]half) {
	f := fl.f
	direct, outer := newSocketConn(inside), newSocketConn(host)
	if !fl.set(func() { fl.pair, fl.direct, fl.host = nil, direct, outer }) {
		reset(direct)
		reset(outer)
		f.finished(fl)
		return
	}
	copy := func(i int, dst, src *SocketConn, moved *atomic.Uint64) {
		h := &halves[i]
		if h.ended {
			return
		}
		st := &stall{interrupt: fl.abort}
		st.watch = func() { st.watchSocket(f.reactor, src.fd) }
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
		defer f.finished(fl)
		done := make(chan struct{})
		go func() { copy(0, outer, direct, &fl.bytesOut); close(done) }()
		copy(1, direct, outer, &fl.bytesIn)
		<-done
		fl.spliced(halves)
	}()
}

// spliced is the end of a flow's goroutines: both halves have ended, or they were stopped, or the flow was aborted.
func (fl *flow) spliced(halves [2]half) {
	fl.mu.Lock()
	well := halves[0].ended && halves[1].ended
	fl.over = true
	switch {
	case !fl.stopping:
	case well || fl.aborted:
		fl.left <- nothing
	default:
		fl.left <- fl.leave(&halves)
	}
	fl.mu.Unlock()
	if well {
		finish(fl.direct)
		finish(fl.host)
	} else {
		reset(fl.direct) // of copies, where it was left: nothing happens to the connections
		reset(fl.host)
	}
	for i := range halves {
		if p := halves[i].rest.p; p != nil {
			p.close()
		}
	}
}
