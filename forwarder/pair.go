package forwarder

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A pair is a flow between two sockets of the kernel of which the reactor copies what comes, as long as that is little:
// requests, answers, the beginning of everything. It needs no goroutine, and each piece three system calls. Of 230 µs that a
// short connection cost the daemon, goroutines and their wake-ups were a third.
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
	ended bool // nothing more comes from it; of the reactor's goroutine
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
	if e.ended {
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
	e.ended = true
	e.p.fl.halfClosed.Store(true)
	if to.ended {
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

// promote gives the flow to two goroutines. What e has read and could not pass on is rest.
func (p *pair) promote(e *pairEnd, rest []byte) {
	if !p.over.CompareAndSwap(false, true) {
		return
	}
	fl, f := p.fl, p.fl.f
	inside, host := newSocketConn(p.ends[0].release(f.reactor)), newSocketConn(p.ends[1].release(f.reactor))
	if !fl.set(func() { fl.pair, fl.direct, fl.host = nil, inside, host }) {
		reset(inside)
		reset(host)
		f.finished(fl)
		return
	}
	var rests [2][]byte // by the end that they came from
	if e == &p.ends[0] {
		rests[0] = append(rests[0], rest...)
	} else {
		rests[1] = append(rests[1], rest...)
	}
	go f.copyBoth(fl,
		half(p.ends[0].ended, func() error { return splice(host, inside, rests[0], &fl.bytesOut) }),
		half(p.ends[1].ended, func() error { return splice(inside, host, rests[1], &fl.bytesIn) }))
}

// half is what copies a half, or nil where that has ended.
func half(ended bool, copy func() error) func() error {
	if ended {
		return nil
	}
	return copy
}
