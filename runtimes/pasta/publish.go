package pasta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/forwarder"
)

// publish binds the ports that are named, and begins to follow those that are not.
func (s *session) publish(ctx context.Context) error {
	for _, direction := range []struct {
		option string
		proto  string
		ports  *Ports
	}{{"-t", "tcp", &s.o.TCP}, {"-u", "udp", &s.o.UDP}} {
		switch direction.ports.Mode {
		case ModeList, ModeAll:
			ranges := direction.ports.Ranges
			if direction.ports.Mode == ModeAll {
				low, _ := ephemeral()
				ranges = []Range{{First: 1, Last: low - 1, To: 1, Weak: true}}
			}
			if err := s.publishRanges(ctx, direction.option, direction.proto, ranges); err != nil {
				return err
			}
		}
	}
	if s.diag == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.follow(ctx)
	}()
	s.release = append(s.release, func() error { cancel(); <-done; return nil })
	return nil
}

// publishRanges binds each range, port by port where it is weak.
func (s *session) publishRanges(ctx context.Context, option, proto string, ranges []Range) error {
	bound := false
	for _, r := range ranges {
		if !r.Weak {
			if err := s.bind(ctx, proto, r); err != nil {
				return fmt.Errorf("failed to bind port %d (%w) for option '%s %d-%d:%d-%d', exiting",
					r.First, err, option, r.First, r.Last, r.To, r.To+r.Last-r.First)
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

// bind publishes one range until the session's end.
func (s *session) bind(ctx context.Context, proto string, r Range) error {
	if r.Interface != "" {
		return errors.New("ports of one interface cannot be had without privileges: give its address")
	}
	unpublish, err := s.bindNow(ctx, proto, r)
	if err != nil {
		return err
	}
	s.release = append(s.release, unpublish)
	return nil
}

func (s *session) bindNow(ctx context.Context, proto string, r Range) (unpublish func() error, err error) {
	in4, in6 := s.guest()
	return s.net.PublishAll(ctx, engine.Publication{
		IPv4: in4,
		IPv6: in6,
		Ports: []forwarder.Mapping{{
			HostIP:   r.Addr,
			HostPort: r.First,
			HostEnd:  r.Last,
			Port:     r.To,
			End:      r.To + r.Last - r.First,
			Proto:    proto,
		}},
	})
}

// followEvery is how often pasta looks what listens in the namespace.
const followEvery = time.Second

// follow publishes what listens in the namespace for as long as it does, until ctx ends.
func (s *session) follow(ctx context.Context) {
	published := map[string]map[uint16]func() error{"tcp": {}, "udp": {}}
	defer func() {
		for _, ports := range published {
			for _, unpublish := range ports {
				_ = unpublish()
			}
		}
	}()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		if s.o.TCP.Mode == ModeAuto {
			s.followOnce(ctx, "tcp", unix.IPPROTO_TCP, published["tcp"])
		}
		if s.o.UDP.Mode == ModeAuto {
			s.followOnce(ctx, "udp", unix.IPPROTO_UDP, published["udp"])
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// followOnce brings the published ports in step with what listens. A port that cannot be had is tried again.
func (s *session) followOnce(ctx context.Context, name string, proto uint8, published map[uint16]func() error) {
	now, err := listening(int(s.diag.Fd()), proto)
	if err != nil {
		s.log.Warn("what listens in the namespace is not known", "error", err)
		return
	}
	for port, unpublish := range published {
		if !now.has(port) {
			_ = unpublish()
			delete(published, port)
		}
	}
	for port := uint32(1); port <= 65535; port++ {
		p := uint16(port)
		if !now.has(p) || published[p] != nil {
			continue
		}
		if unpublish, err := s.bindNow(ctx, name, Range{First: p, Last: p, To: p}); err == nil {
			published[p] = unpublish
		}
	}
}
