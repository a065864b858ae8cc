package publish

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/usernet/usernet/internal/ports"
	"github.com/usernet/usernet/internal/sockio"
)

// Publish binds all of ports for the container at in4 and in6, or with an error none.
func (pb *Publisher) Publish(ctx context.Context, in4, in6 netip.Addr, bindings []Binding) ([]Bound, error) {
	need := 0
	for _, b := range bindings {
		need += b.Count()
	}
	t := &transaction{pb: pb, in4: in4, in6: in6, need: need}
	for _, b := range bindings {
		if err := t.add(ctx, b); err != nil {
			t.undo(0)
			return nil, err
		}
	}
	out := make([]Bound, 0, 2*len(t.made))
	for _, p := range t.made {
		out = append(out, p.Bounds()...)
	}
	return out, nil
}

// transaction is what one Publish has bound so far.
type transaction struct {
	pb       *Publisher
	in4, in6 netip.Addr
	need     int // how many sockets the whole of it needs
	made     []*Port
	options  sockio.ListenOptions // of the binding that is under way, but Dual
}

// undo gives back what was bound after the first keep.
func (t *transaction) undo(keep int) {
	for _, p := range t.made[keep:] {
		t.pb.unbind(p)
	}
	t.made = t.made[:keep]
}

func (t *transaction) add(ctx context.Context, b Binding) error {
	if b.Proto == ports.SCTP {
		return errors.New(
			"SCTP ports cannot be published: unprivileged host sockets cannot carry SCTP; publish TCP or UDP",
		)
	}
	t.options = sockio.ListenOptions{Interface: b.Interface, FreeBind: b.FreeBind}
	for i := range b.Count() {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		inside := ports.Port{Port: b.Port + uint16(i), Proto: b.Proto}
		switch {
		case b.HostPort == 0:
			err = t.bindFree(b.HostIP, inside)
		case b.Count() == 1 && b.HostCount() > 1:
			err = t.bindFirst(b.HostIP, b.HostPort, b.HostCount(), inside)
		default:
			err = t.bind(b.HostIP, b.HostPort+uint16(i), inside)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bindFirst takes the first port of a range that is free in all families.
func (t *transaction) bindFirst(hostIP netip.Addr, first uint16, count int, inside ports.Port) error {
	var err error
	for i := range count {
		if err = t.bind(hostIP, first+uint16(i), inside); !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
	return err
}

// bindFree draws host ports from net.ipv4.ip_local_port_range until one is free in all families.
func (t *transaction) bindFree(hostIP netip.Addr, inside ports.Port) error {
	low, high := 32768, 60999 // the kernel's default (ip(7))
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(strings.TrimSpace(string(b)), &low, &high)
	}
	var err error
	for range 100 {
		if err = t.bind(hostIP, uint16(low+rand.IntN(high-low+1)), inside); !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
	return err
}

// bind binds one host port on hostIP, or on all addresses of both families: with one socket where that is possible,
// which is half the descriptors.
func (t *transaction) bind(hostIP netip.Addr, hostPort uint16, inside ports.Port) error {
	if hostIP.IsValid() {
		return t.bindOne(hostIP, hostPort, inside, false)
	}
	all4, all6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	if t.pb.cfg.Table.inherits(all4, hostPort, inside.Proto) || t.pb.cfg.Table.inherits(all6, hostPort, inside.Proto) {
		keep := len(t.made)
		if err := t.bindOne(all4, hostPort, inside, false); err != nil {
			return err
		}
		err := t.bindOne(all6, hostPort, inside, false)
		if err != nil {
			t.undo(keep)
		}
		return err
	}
	err := t.bindOne(all6, hostPort, inside, true)
	if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) { // the host has no IPv6
		return t.bindOne(all4, hostPort, inside, false)
	}
	return err
}

func (t *transaction) bindOne(host netip.Addr, hostPort uint16, inside ports.Port, dual bool) error {
	p := &Port{
		pb: t.pb,
		bound: Bound{
			Host:      netip.AddrPortFrom(host, hostPort),
			Port:      inside.Port,
			Proto:     inside.Proto,
			Interface: t.options.Interface,
		},
		options: t.options,
		in4:     t.in4,
		in6:     t.in6,
	}
	p.options.Dual = dual
	if err := t.pb.open(p); err != nil {
		return &BindError{Host: p.Bounds()[0].Host, Proto: inside.Proto, Need: t.need, Err: err}
	}
	t.made = append(t.made, p)
	return nil
}
