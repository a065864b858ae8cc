package pasta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/runtimes/client"
	"github.com/usernet/usernet/runtimes/joined"
	"github.com/usernet/usernet/sandbox"
)

// join connects the namespace to networks of the daemon instead of making it look like the host. The address of
// --dns-forward is the daemon's name server; ports are published by the daemon.
func (s *session) join(ctx context.Context) (connection, error) {
	o := s.o
	switch {
	case !o.ConfigNet:
		return nil, errors.New(
			"a network of usernet's daemon is joined with --config-net only: the daemon gives the addresses",
		)
	case o.PCAP != "":
		return nil, errors.New(
			"--pcap is for the traffic of this process, and that of a network of usernet's daemon does not pass it",
		)
	case o.FreeBind:
		return nil, errors.New("--freebind is not done for ports that usernet's daemon publishes")
	}
	target := o.target()
	path := target.NetNS
	if path == "" {
		path = fmt.Sprintf("/proc/%d/ns/net", target.Pid)
	}
	if o.follows() {
		var none *sandbox.Helper // the process enters the namespace itself
		reply, err := none.Configure(ctx, target, sandbox.Request{SockDiag: true})
		if err != nil {
			return nil, fmt.Errorf("what listens in the namespace: %w", err)
		}
		s.diag = reply.SockDiag
		s.nameServer = cmp.Or(o.DNSForward[v4], netip.MustParseAddr(client.NameServer))
	}
	netns, err := sandbox.OpenNetNS(path)
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	a, err := joined.Join(ctx, joined.Config{
		Daemon:    o.daemon,
		Log:       s.log,
		NetNS:     netns,
		Networks:  o.Networks,
		Name:      o.Name,
		Interface: s.host.Interface,
		MAC:       o.MAC,
		DNSAddr:   o.DNSForward[v4],
	})
	if err != nil {
		return nil, err
	}
	return daemonNetwork{a}, nil
}

// daemonNetwork publishes by the daemon.
type daemonNetwork struct{ *joined.Attachment }

// PublishAll implements connection. The daemon knows the container's addresses.
func (n daemonNetwork) PublishAll(ctx context.Context, p engine.Publication) (unpublish func() error, err error) {
	var ports []network.PortBinding
	for _, b := range p.Ports {
		if b.Interface != "" {
			return nil, fmt.Errorf(
				"ports of one interface are not done where usernet's daemon publishes them: give an address of %s",
				b.Interface,
			)
		}
		ports = append(ports, network.PortBinding{
			HostIP:   b.HostIP,
			HostPort: b.HostPort,
			HostEnd:  b.HostEnd,
			Port:     b.Port,
			End:      b.End,
			Proto:    network.Protocol(b.Proto),
		})
	}
	return n.Attachment.PublishAll(ctx, ports)
}
