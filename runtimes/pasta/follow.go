package pasta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockdiag"
)

// direction is one of the four port options.
type direction struct {
	option string // as people write it
	proto  string // tcp or udp
	number uint8  // of proto, in IP headers
	ports  *Ports
	inward bool     // from the host to the namespace
	taken  *portSet // ports that this process listens at, where connections begin
}

// directions are the four options, but those of protocols that are switched off.
func (s *session) directions() []direction {
	var list []direction
	if !s.o.NoTCP {
		list = append(list, direction{"-t", "tcp", unix.IPPROTO_TCP, &s.o.TCP, true, &s.onHost[0]},
			direction{"-T", "tcp", unix.IPPROTO_TCP, &s.o.TCPNS, false, &s.inside[0]})
	}
	if !s.o.NoUDP {
		list = append(list, direction{"-u", "udp", unix.IPPROTO_UDP, &s.o.UDP, true, &s.onHost[1]},
			direction{"-U", "udp", unix.IPPROTO_UDP, &s.o.UDPNS, false, &s.inside[1]})
	}
	return list
}

// named are the ranges that an option names.
func (p *Ports) named() []Range {
	if p.Mode == ModeList {
		return p.Ranges
	}
	return nil
}

// follows says whether any ports are those of others.
func (o *Options) follows() bool {
	tcp := !o.NoTCP && (o.TCP.Mode == ModeAuto || o.TCPNS.Mode == ModeAuto)
	return tcp || !o.NoUDP && (o.UDP.Mode == ModeAuto || o.UDPNS.Mode == ModeAuto)
}

// followEvery is how often it is looked what listens (pasta(1), --tcp-ports auto).
const followEvery = time.Second

// startFollowing follows what listens in the namespace and on the host until the session's end.
func (s *session) startFollowing() error {
	fd, err := sockdiag.Open()
	if err != nil {
		return err
	}
	host := os.NewFile(uintptr(fd), "sock_diag")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.follow(ctx, host)
	}()
	s.release = append(s.release, func() error { cancel(); <-done; return host.Close() })
	return nil
}

// follow does so until ctx ends.
func (s *session) follow(ctx context.Context, host *os.File) {
	var all []*follower
	for _, d := range s.directions() {
		if d.ports.Mode == ModeAuto {
			all = append(all, &follower{s: s, d: d, stop: map[uint16]func() error{}})
		}
	}
	defer func() {
		for _, f := range all {
			for port := range f.stop {
				f.drop(port)
			}
		}
	}()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		for _, f := range all {
			err := f.once(ctx, host)
			if err != nil && ctx.Err() == nil && !errors.Is(err, fs.ErrNotExist) { // that: the command has just ended
				s.log.Warn("ports are not followed", "option", f.d.option, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// follower keeps the ports of one option in step with what listens at the other side. One goroutine uses it.
type follower struct {
	s       *session
	d       direction
	stop    map[uint16]func() error // by port that is followed
	refused portSet                 // ports that could not be had inside
}

// once brings ports in step. A port of the host's that cannot be had is tried again.
func (f *follower) once(ctx context.Context, host *os.File) error {
	s := f.s
	there, here := int(host.Fd()), int(s.diag.Fd()) // where connections go, where they begin
	if f.d.inward {
		there, here = here, there
	}
	ours := &s.onHost
	if f.d.inward {
		ours = &s.inside
	}
	want, err := listening(there, f.d.number, s.nameServer)
	if err != nil {
		return err
	}
	used, err := listening(here, f.d.number, netip.Addr{})
	if err != nil {
		return err
	}
	if f.d.number == unix.IPPROTO_UDP {
		tcp, err := listening(there, unix.IPPROTO_TCP, s.nameServer) // programs that use both, as iperf3, bind UDP late
		if err != nil {
			return err
		}
		low, high := ephemeral()
		want.remove(low, high) // the other ends of somebody's questions
		tcp.subtract(&ours[0])
		want.union(tcp)
	}
	ownThere := &ours[f.d.index()]
	for port := range f.stop {
		if !want.has(port) {
			f.drop(port)
		}
	}
	var fresh []Range
	for port := uint32(1); port <= 65535; port++ {
		p := uint16(port)
		switch {
		case !want.has(p):
			f.refused.remove(p, p)
		case ownThere.has(p), f.stop[p] != nil, used.has(p), f.refused.has(p):
		default:
			fresh = append(fresh, Range{First: p, Last: p, To: p})
		}
	}
	return f.add(ctx, fresh)
}

// index is the protocol's place in pairs.
func (d direction) index() int {
	if d.proto == "tcp" {
		return 0
	}
	return 1
}

// add forwards ports.
func (f *follower) add(ctx context.Context, fresh []Range) error {
	if len(fresh) == 0 {
		return nil
	}
	if f.d.inward {
		for _, r := range fresh {
			if stop, err := f.s.bindNow(ctx, f.d.proto, r); err == nil {
				f.stop[r.First] = stop
				f.d.taken.add(r.First, r.First)
			}
		}
		return nil
	}
	stops, err := f.s.listenInside(ctx, f.d, fresh)
	for _, r := range fresh {
		if stop := stops[r.First]; stop != nil {
			f.stop[r.First] = stop
			f.d.taken.add(r.First, r.First)
		} else {
			f.refused.add(r.First, r.First)
		}
	}
	return err
}

// drop ends the forwarding of a port.
func (f *follower) drop(port uint16) {
	if err := f.stop[port](); err != nil {
		f.s.log.Warn("a port could not be closed", "option", f.d.option, "port", fmt.Sprint(port), "error", err)
	}
	delete(f.stop, port)
	f.d.taken.remove(port, port)
}
