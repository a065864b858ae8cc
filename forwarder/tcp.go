package forwarder

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/faults"
	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/internal/sockio"
)

// dialTimeout is how long a destination may take to answer. The container's own attempts end after about two minutes.
const dialTimeout = 30 * time.Second

// simultaneousOpenTimeout is how long the bypass waits for a container's answer from within its namespace. Nothing
// delays packets there, and the container sends its SYN again after a second (RFC 6298, 2.1). The first connection may
// have waited before, until the sandbox was entered.
const simultaneousOpenTimeout = 500 * time.Millisecond

// HandleTCP dials the host first and completes the container's handshake only then, so that a refusal stays a refusal.
func (f *Forwarder) HandleTCP(r SYN) {
	src, dst := r.Ends()
	if faults.Enabled {
		faults.Check(faults.SYN, []byte(dst.String()))
	}
	target, err := f.hostTarget(src.Addr(), unix.IPPROTO_TCP, dst)
	if err != nil {
		f.answerNoTarget(r, err)
		return
	}
	if f.has(flowKey{src, dst}, r.Seq()) {
		r.Drop() // netstack knows its own connections: this one bypasses it
		return
	}
	if !f.acquireUse(src.Addr(), useDialling) {
		r.Drop() // the container sends it again
		return
	}
	began := time.Now()
	host, err := f.dialHost(f.ctx, src.Addr(), target)
	f.dials[dialResultOf(err)].Observe(time.Since(began))
	f.releaseUse(src.Addr(), useDialling)
	if err != nil {
		f.tellLoopbackClosed(src.Addr(), dst, target, err)
		f.answerNoHost(r, err)
		return
	}
	fl := &flow{f: f, direction: "out", inside: src, outside: dst, seq: r.Seq(), hostSide: sockio.LocalAddr(host)}
	if err := f.addFlow(fl, host); err != nil {
		_ = unix.Close(host) // which resets it (sockio.SetTCP)
		if f.isDetached() || errors.Is(err, unix.ENFILE) {
			r.Drop() // the container sends it again, perhaps to another daemon
		} else {
			r.Refuse()
		}
		return
	}
	if r.CanBypass() && f.acceptByBypass(r, fl, host) {
		return
	}
	f.acceptByGateway(r, fl, host)
}

// answerNoTarget answers a SYN whose destination the container may not reach.
func (f *Forwarder) answerNoTarget(r SYN, err error) {
	switch {
	case errors.Is(err, errProhibited):
		r.Refuse()
	case errors.Is(err, ErrNoAnswer):
		r.Drop()
	default:
		f.counters[countTCPRefused].Add(1)
		r.Unreachable(false)
	}
}

// tellLoopbackClosed tells of a connection to a gateway's address, which stands for the host, that has found nobody at
// the address by which the host is reached without Config.HostLoopback.
func (f *Forwarder) tellLoopbackClosed(src netip.Addr, dst, target netip.AddrPort, err error) {
	if f.cfg.Refused != nil && errors.Is(err, unix.ECONNREFUSED) && target != dst && !target.Addr().IsLoopback() {
		f.cfg.Refused(src, unix.IPPROTO_TCP, dst, ErrLoopbackClosed)
	}
}

// answerNoHost answers a SYN as the host's network has answered the dialling.
func (f *Forwarder) answerNoHost(r SYN, err error) {
	f.counters[countTCPRefused].Add(1)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		r.Refuse()
	case errors.Is(err, unix.EMFILE):
		// As at the other limits; without an answer the container would try for two minutes. ENFILE passes.
		r.Refuse()
	case errors.Is(err, syscall.EHOSTUNREACH):
		r.Unreachable(true)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL),
		errors.Is(err, syscall.EAFNOSUPPORT), forbidden(err):
		r.Unreachable(false)
	default:
		r.Drop()
	}
}

// forbidden says whether this machine lets nothing through, now or later: by a route (EACCES), a packet filter (EPERM),
// or since the destination is not reached from the source address or the interface of the configuration (EINVAL,
// ENODEV).
func forbidden(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.ENODEV)
}

// acceptByBypass completes a handshake by a socket of the container's namespace, and relays the flow. False: the
// gateway has to complete it.
func (f *Forwarder) acceptByBypass(r SYN, fl *flow, host int) bool {
	inside, err := f.simultaneousOpen(fl)
	if err == nil {
		r.Bypassed()
		f.counters[countTCP].Add(1)
		f.counters[countBypassOutbound].Add(1)
		fl.relay(inside, host)
		return true
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, unix.EADDRNOTAVAIL) || f.ctx.Err() != nil {
		r.Drop() // the connection's state is unknown, or it is connected; else the container sends its SYN again
		_ = unix.Close(host)
		f.removeFlow(fl)
		return true
	}
	return false
}

// acceptByGateway completes a handshake by netstack, and relays the flow.
func (f *Forwarder) acceptByGateway(r SYN, fl *flow, host int) {
	memory, ok := f.claimBuffers(fl.inside.Addr())
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

// dialHost returns a socket that is connected to the outside for the container at inside.
func (f *Forwarder) dialHost(ctx context.Context, inside netip.Addr, to netip.AddrPort) (fd int, err error) {
	fd, err = unix.Socket(sockio.Family(to.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
			fd = -1
		}
	}()
	dialling, ok := f.claimDescriptors(inside, 1, fd)
	if !ok && f.processShort(inside, 1) {
		return fd, unix.ENFILE
	}
	if !ok {
		return fd, unix.EMFILE // the container's share is used up
	}
	defer dialling.release() // the flow, if one comes of it, claims its own
	if err := sockio.SetTCP(fd, f.cfg.Shared.keepAlive); err != nil {
		return fd, err
	}
	if f.cfg.Shared.host.Has(to.Addr()) {
		sockio.StaysLocal(fd)
	}
	if local := f.outbound(to.Addr()); local.IsValid() {
		// The port is chosen when it is known where to, which leaves more of them (ip(7)).
		_ = sockio.SetOption(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err := sockio.Bind(fd, netip.AddrPortFrom(local, 0)); err != nil {
			return fd, err
		}
	}
	if ifc := f.outboundInterface(to.Addr()); ifc != "" {
		if err := unix.BindToDevice(fd, ifc); err != nil {
			return fd, err
		}
	}
	if err := f.connect(ctx, fd, to, dialTimeout); err != nil {
		return fd, err
	}
	if sockio.LocalAddr(fd) == to {
		// Nobody listens there, and the kernel happened to choose this port: the socket has met itself.
		return fd, unix.ECONNREFUSED
	}
	return fd, nil
}

// connect connects a socket. Within one machine that is over at once; otherwise it is waited for as long as timeout
// says, unless ctx ends before.
func (f *Forwarder) connect(ctx context.Context, fd int, to netip.AddrPort, timeout time.Duration) error {
	if err := sockio.Connect(fd, to); err == nil || !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	if sockio.IsConnected(fd) {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return f.reactor.WaitConnected(ctx, fd)
}

// dialBypass connects a socket of the network namespace of the container at inside to it, in the name of outside: where
// the container asks for that connection itself (outbound), as an answer to it, and else to its port. The container may
// take as long as timeout says, unless ctx ends before.
func (f *Forwarder) dialBypass(
	ctx context.Context, inside, outside netip.AddrPort, outbound bool, timeout time.Duration,
) (fd int, err error) {
	if fd, err = f.bypassSocket(ctx, inside, outside, outbound); err != nil {
		return -1, err
	}
	if err = f.connectBypass(ctx, fd, inside, outside, timeout); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// bypassSocket returns a socket for dialBypass.
func (f *Forwarder) bypassSocket(
	ctx context.Context, inside, outside netip.AddrPort, outbound bool,
) (fd int, err error) {
	if f.cfg.Socket == nil {
		return -1, ErrNoBypass
	}
	err = isolate.Call(f.cfg.Logger, "getting a socket of a sandbox", func() (err error) {
		fd, err = f.cfg.Socket(ctx, inside.Addr(), outside, outbound)
		return err
	}, "container", inside.Addr())
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// connectBypass connects such a socket, which stays the caller's.
func (f *Forwarder) connectBypass(
	ctx context.Context, fd int, inside, outside netip.AddrPort, timeout time.Duration,
) error {
	if f.cfg.connect != nil {
		return f.cfg.connect(fd)
	}
	if err := sockio.Bind(fd, outside); err != nil {
		return err
	}
	return f.connect(ctx, fd, inside, timeout)
}

// simultaneousOpen has the connection that a container asks for answered from within its own namespace: its SYN and
// ours cross, which to TCP is a simultaneous open (RFC 9293, 3.5).
func (f *Forwarder) simultaneousOpen(fl *flow) (fd int, err error) {
	fd, err = f.dialBypass(f.ctx, fl.inside, fl.outside, true, simultaneousOpenTimeout)
	f.tellOutcome(fl, err)
	return fd, err
}

// tellOutcome tells whether the container took part in a connection over a socket of its namespace.
func (f *Forwarder) tellOutcome(fl *flow, err error) {
	if f.cfg.BypassOutcome != nil && (err == nil || errors.Is(err, context.DeadlineExceeded)) {
		f.cfg.BypassOutcome(fl.inside.Addr(), fl.outside, err == nil)
	}
}
