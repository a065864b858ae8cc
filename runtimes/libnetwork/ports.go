package libnetwork

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/network"
)

// portBinding is one of Docker's published ports (libnetwork's types.PortBinding).
type portBinding struct {
	Proto       uint8 // as in the IP header
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

// publish binds the ports of an endpoint. Docker tells them for the one through which a container reaches the outside.
func (p *Plugin) publish(ctx context.Context, d daemon, q endpointRequest) (any, error) {
	ports, err := q.ports()
	if err != nil || len(ports) == 0 {
		return nothing, err
	}
	c, err := attachment(ctx, d, q)
	if err != nil {
		return nil, err
	}
	if _, err := d.PortsAdd(ctx, c.ID, ports); err != nil {
		return nil, err
	}
	return nothing, nil
}

// unpublish gives the ports back. An endpoint that is gone has none.
func (p *Plugin) unpublish(ctx context.Context, d daemon, q endpointRequest) (any, error) {
	c, err := attachment(ctx, d, q)
	if err != nil || len(c.Ports) == 0 {
		return nothing, nil
	}
	return nothing, d.PortsRemove(ctx, c.ID, c.Ports)
}

// ports are the published ones of an endpoint's options.
func (q endpointRequest) ports() ([]network.PortBinding, error) {
	text, ok := q.Options[optionPortMap]
	if !ok {
		return nil, nil
	}
	var list []portBinding
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("published ports: %w", err)
	}
	var ports []network.PortBinding
	for _, b := range list {
		port, err := b.binding()
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// binding is b in usernet's terms.
func (b portBinding) binding() (network.PortBinding, error) {
	r := network.PortBinding{HostPort: b.HostPort, HostEnd: max(b.HostPort, b.HostPortEnd), Port: b.Port, End: b.Port}
	switch b.Proto {
	case unix.IPPROTO_TCP:
		r.Proto = network.TCP
	case unix.IPPROTO_UDP:
		r.Proto = network.UDP
	default:
		return r, fmt.Errorf("published port %d: only tcp and udp can be published", b.Port)
	}
	if b.HostIP != "" {
		ip, err := netip.ParseAddr(b.HostIP)
		if err != nil {
			return r, fmt.Errorf("published port %d: %w", b.Port, err)
		}
		if !ip.IsUnspecified() {
			r.HostIP = ip
		}
	}
	return r, nil
}
