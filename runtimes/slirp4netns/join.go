package slirp4netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/runtimes/joined"
	"github.com/usernet/usernet/sandbox"
)

// join connects the namespace to networks of the daemon, and holds the attachment until the end. The runtime goes on to
// believe in the addresses of the plan: that of the name server answers, and the guest's is on the loopback interface,
// where the runtime's own forwarders find the services.
func (o *Options) join(
	ctx context.Context,
	daemon func() (*api.Client, error),
	stdout io.Writer,
	log *slog.Logger,
) error {
	if o.TargetType == targetBESS || o.NetNSType == netnsTAP {
		return errors.New(
			"a network of usernet's daemon is joined by a network namespace: give a process id, or a path with --netns-type=path",
		)
	}
	target, err := o.target()
	if err != nil {
		return err
	}
	path := target.NetNS
	if path == "" {
		path = fmt.Sprintf("/proc/%d/ns/net", target.Pid)
	}
	netns, err := sandbox.OpenNetNS(path)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	cfg := joined.Config{Daemon: daemon, Log: log, NetNS: netns, Networks: o.Networks, Name: o.Name}
	if !o.DisableDNS {
		cfg.DNSAddr = o.Plan.DNS
	}
	if o.Configure {
		cfg.Interface, cfg.MAC = o.TAP, o.MAC
		cfg.LocalAddrs = []netip.Addr{o.Plan.Guest}
	} else {
		cfg.CallerAddrs = []netip.Addr{o.Plan.Guest}
	}
	a, err := joined.Join(ctx, cfg)
	if err != nil {
		return err
	}
	c := a.Container()
	if !o.Configure {
		if err := preferRoutes(ctx, target, &c); err != nil {
			return errors.Join(err, a.Close())
		}
	}
	fmt.Fprintf(
		stdout,
		"Joined usernet's daemon\n* Networks:        %s\n* Container:       %s\n* DNS:             %s\n",
		strings.Join(o.Networks, ", "),
		c.Name,
		o.Plan.DNS,
	)
	var guest6 netip.Addr
	for _, e := range c.Endpoints {
		if e.IPv6.IsValid() && !guest6.IsValid() {
			guest6 = e.IPv6.Addr()
		}
	}
	return errors.Join(o.serve(ctx, a, guest6, log), a.Close())
}

// preferRoutes replaces the default routes of the daemon's networks by two to half of the addresses each. A caller that
// configures its own interface gives that the default route, which then can be added, and is not used.
func preferRoutes(ctx context.Context, target sandbox.Target, c *network.Container) error {
	var r sandbox.Request
	var done4, done6 bool
	for _, e := range c.Endpoints { // the first has the priority
		if e.Gateway4.IsValid() && !done4 {
			r.Routes = append(r.Routes, halves(e, e.Gateway4)...)
			done4 = true
		}
		if e.Gateway6.IsValid() && !done6 {
			r.Routes = append(r.Routes, halves(e, e.Gateway6)...)
			done6 = true
		}
	}
	var none *sandbox.Helper // the process enters the namespace itself
	if _, err := none.Configure(ctx, target, r); err != nil {
		return fmt.Errorf("routes in the namespace of usernet's networks: %w", err)
	}
	return nil
}

// halves are the routes to both halves of a family's addresses.
func halves(e *network.Endpoint, via netip.Addr) []sandbox.Route {
	low := netip.PrefixFrom(netip.IPv4Unspecified(), 1)
	high := netip.PrefixFrom(netip.AddrFrom4([4]byte{0x80}), 1)
	if via.Is6() {
		low = netip.PrefixFrom(netip.IPv6Unspecified(), 1)
		high = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x80}), 1)
	}
	return []sandbox.Route{
		{Dst: low, Via: via, Interface: e.Interface},
		{Dst: high, Via: via, Interface: e.Interface},
	}
}
