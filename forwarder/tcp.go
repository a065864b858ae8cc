package forwarder

import (
	"context"
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/faults"
	"github.com/usernet/usernet/internal/sockio"
)

// dialTimeout is how long a destination may take to answer. The container's own attempts end after about two minutes.
const dialTimeout = 30 * time.Second

// simultaneousOpenTimeout is how long a container's connection may take to be answered from within its namespace. Its
// packets wait for nobody there, and it asks again after a second (RFC 6298, 2.1); the first one may wait for a sandbox
// to be entered.
const simultaneousOpenTimeout = 500 * time.Millisecond

// HandleTCP dials the host first and completes the container's handshake only then.
func (f *Forwarder) HandleTCP(r SYN) {
	src, dst := r.Ends()
	if faults.Enabled {
		faults.Check(faults.SYN, []byte(dst.String()))
	}
	target, err := f.hostTarget(src.Addr(), unix.IPPROTO_TCP, dst)
	if errors.Is(err, errProhibited) {
		r.Refuse()
		return
	}
	if errors.Is(err, ErrNoAnswer) {
		r.Drop()
		return
	}
	if err != nil {
		f.counters[countTCPRefused].Add(1)
		r.Unreachable(false)
		return
	}
	if f.has(flowKey{src, dst}) {
		r.Drop() // netstack knows its own: this SYN was sent again, and has been answered past it since
		return
	}
	if !f.acquireUse(src.Addr(), useDialling) {
		r.Drop() // it asks again
		return
	}
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
	host, err := f.dialHost(ctx, src.Addr(), target)
	cancel()
	f.releaseUse(src.Addr(), useDialling)
	if err != nil {
		f.counters[countTCPRefused].Add(1)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			r.Refuse()
		case errors.Is(err, unix.EMFILE):
			// As at the other limits; unanswered, the container would ask for two minutes. ENFILE passes.
			r.Refuse()
		case errors.Is(err, syscall.EHOSTUNREACH):
			r.Unreachable(true)
		case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EACCES),
			errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
			r.Unreachable(false)
		default:
			r.Drop()
		}
		return
	}
	fl := &flow{f: f, direction: "out", inside: src, outside: dst, hostSide: sockio.LocalAddr(host)}
	if err := f.addFlow(fl, host); err != nil {
		_ = unix.Close(host) // which resets it (sockio.SetTCP)
		if f.isDetached() || errors.Is(err, unix.ENFILE) {
			r.Drop() // it asks again, perhaps somebody else
		} else {
			r.Refuse()
		}
		return
	}
	if r.CanBypass() {
		inside, err := f.simultaneousOpen(fl)
		if err == nil {
			r.Bypassed()
			f.counters[countTCP].Add(1)
			f.counters[countBypassOutbound].Add(1)
			fl.relay(inside, host)
			return
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, unix.EADDRNOTAVAIL) || f.ctx.Err() != nil {
			r.Drop() // nothing is known of its state, or it is connected; else it asks again
			_ = unix.Close(host)
			f.removeFlow(fl)
			return
		}
	}
	memory, ok := f.claimBuffers(src.Addr())
	if !ok {
		r.Refuse()
		_ = unix.Close(host)
		f.removeFlow(fl)
		return
	}
	in, err := r.Accept()
	if err != nil {
		_ = unix.Close(host)
		memory.release()
		f.removeFlow(fl)
		return
	}
	f.counters[countTCP].Add(1)
	fl.relayConn(in, host, memory)
}
