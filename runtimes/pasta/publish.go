package pasta

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/forwarder/publish"
)

// publish binds the ports that are named, on the host and in the namespace, and begins to follow those that are not.
func (s *session) publish(ctx context.Context) error {
	for _, d := range s.directions() {
		ranges := d.ports.named()
		if len(ranges) == 0 {
			continue
		}
		if d.inward {
			if err := s.publishRanges(ctx, d.option, d.proto, ranges); err != nil {
				return err
			}
		} else if err := s.listenRanges(ctx, d, ranges); err != nil {
			return err
		}
		for _, r := range ranges {
			d.taken.add(r.First, r.Last)
		}
	}
	if !s.o.follows() {
		return nil
	}
	return s.startFollowing()
}

// publishRanges binds each range, port by port where it is weak.
func (s *session) publishRanges(ctx context.Context, option, proto string, ranges []Range) error {
	bound := false
	for _, r := range ranges {
		if !r.Weak {
			if err := s.bind(ctx, proto, r); err != nil {
				return bindError(option, r, err)
			}
			bound = true
			continue
		}
		for p := uint32(r.First); p <= uint32(r.Last); p++ {
			one := r
			one.First, one.Last, one.To = uint16(p), uint16(p), r.To+uint16(p)-r.First
			bound = s.bind(ctx, proto, one) == nil || bound
		}
	}
	if !bound && len(ranges) > 0 {
		return fmt.Errorf("failed to bind any port for option '%s'", option)
	}
	return nil
}

// bindError is pasta's text for a port that cannot be bound: with the kernel's own words, which Podman's tests look
// for, and what to do where there is more to say.
func bindError(option string, r Range, err error) error {
	port, why := r.First, err.Error()
	if bind := (*publish.BindError)(nil); errors.As(err, &bind) {
		port = bind.Host.Port()
	}
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		why = sentence(errno)
		if errno == unix.EACCES {
			why += ": " + err.Error()
		}
	}
	return fmt.Errorf("failed to bind port %d (%s) for option '%s %d-%d:%d-%d', exiting",
		port, why, option, r.First, r.Last, r.To, r.To+r.Last-r.First)
}

// releaseTime is for how long a port may still be taken by the process whose place this one takes: Podman starts a
// container again within tens of milliseconds.
const releaseTime = time.Second

// bind publishes one range until the session's end.
func (s *session) bind(ctx context.Context, proto string, r Range) error {
	deadline := time.Now().Add(releaseTime)
	for {
		unpublish, err := s.bindNow(ctx, proto, r)
		if err == nil {
			s.release = append(s.release, unpublish)
			return nil
		}
		if r.Weak || !errors.Is(err, unix.EADDRINUSE) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *session) bindNow(ctx context.Context, proto string, r Range) (unpublish func() error, err error) {
	in4, in6 := s.guest()
	return s.net.PublishAll(ctx, engine.Publication{
		IPv4: in4,
		IPv6: in6,
		Ports: []publish.Binding{{
			HostIP:    r.Addr,
			HostPort:  r.First,
			HostEnd:   r.Last,
			Port:      r.To,
			End:       r.To + r.Last - r.First,
			Proto:     publish.Protocol(proto),
			Interface: r.Interface,
			FreeBind:  s.o.FreeBind,
		}},
	})
}
