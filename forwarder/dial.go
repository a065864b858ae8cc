package forwarder

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/internal/sockio"
)

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
	if local := f.outbound(to.Addr()); local.IsValid() {
		// The port is chosen when it is known where to, which leaves more of them (ip(7)).
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err := unix.Bind(fd, sockio.Sockaddr(netip.AddrPortFrom(local, 0))); err != nil {
			return fd, err
		}
	}
	if ifc := f.outboundInterface(to.Addr()); ifc != "" {
		if err := unix.BindToDevice(fd, ifc); err != nil {
			return fd, err
		}
	}
	if err := f.connect(ctx, fd, to); err != nil {
		return fd, err
	}
	if sockio.LocalAddr(fd) == to {
		// Nobody listens there, and the kernel happened to choose this port: the socket has met itself.
		return fd, unix.ECONNREFUSED
	}
	return fd, nil
}

// connect connects a socket. Within one machine that is over at once; otherwise it is waited for until ctx ends.
func (f *Forwarder) connect(ctx context.Context, fd int, to netip.AddrPort) error {
	if err := unix.Connect(fd, sockio.Sockaddr(to)); err == nil || !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	if _, err := unix.Getpeername(fd); err == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return f.reactor.WaitConnected(ctx, fd)
}

// dialBypass connects a socket of the network namespace of the container at inside to it, in the name of outside: where
// the container asks for that connection itself (outbound), as an answer to it, and else to its port.
func (f *Forwarder) dialBypass(ctx context.Context, inside, outside netip.AddrPort, outbound bool) (fd int, err error) {
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
	if f.cfg.connect != nil {
		err = f.cfg.connect(fd)
	} else if err = unix.Bind(fd, sockio.Sockaddr(outside)); err == nil {
		err = f.connect(ctx, fd, inside)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// simultaneousOpen has the connection that a container asks for answered from within its own namespace: its SYN and
// ours cross, which to TCP is a simultaneous open (RFC 9293, 3.5).
func (f *Forwarder) simultaneousOpen(fl *flow) (fd int, err error) {
	ctx, cancel := context.WithTimeout(f.ctx, simultaneousOpenTimeout)
	defer cancel()
	fd, err = f.dialBypass(ctx, fl.inside, fl.outside, true)
	if f.cfg.BypassOutcome != nil && (err == nil || errors.Is(err, context.DeadlineExceeded)) {
		f.cfg.BypassOutcome(fl.inside.Addr(), fl.outside, err == nil)
	}
	return fd, err
}
