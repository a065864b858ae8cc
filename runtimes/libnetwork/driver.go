package libnetwork

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// keyPrefix begins the keys of all attachments of Docker's.
const keyPrefix = "docker/"

func key(networkID, endpointID string) string { return keyPrefix + networkID + "/" + endpointID }

// short is an id as people see it.
func short(id string) string { return id[:min(len(id), 12)] }

// interfaceName is the interface's until dockerd gives it another: at most 15 characters.
func interfaceName(endpointID string) string { return "un" + short(endpointID) }

// createNetwork finds the daemon's network for one of Docker's, or makes it.
func (p *Plugin) createNetwork(driver string) func(context.Context, daemon, createNetworkRequest) (any, error) {
	return func(ctx context.Context, d daemon, q createNetworkRequest) (any, error) {
		spec, name, err := q.spec(driver)
		if err != nil {
			return nil, err
		}
		named, err := p.named(ctx, d, q, spec, name)
		if err != nil {
			return nil, err
		}
		if named.ID != "" {
			return nothing, p.state.change(func(c *content) { c.Networks[q.NetworkID] = named })
		}
		if err := p.dropReservations(ctx, d, q, spec.Pools); err != nil {
			return nil, err
		}
		made, err := d.NetworkCreate(ctx, spec)
		if err != nil {
			return nil, p.withAdvice(err, driver, q, spec.Pools)
		}
		own := netRef{ID: made.ID, Own: true}
		err = p.state.change(func(c *content) {
			c.Networks[q.NetworkID] = own
			for _, pool := range spec.Pools {
				if have, ok := c.Pools[pool.Subnet.String()]; ok && q.reserved(pool.Subnet) {
					have.netRef = netRef{ID: made.ID} // it goes with the network, no more with the pool
					c.Pools[pool.Subnet.String()] = have
				}
			}
		})
		if err != nil {
			return nil, errors.Join(err, d.NetworkRemove(ctx, made.ID))
		}
		return nothing, nil
	}
}

// withAdvice is the reason why there is no network of pools: subnets that Docker's own IPAM driver has chosen, which
// knows none of those that usernet has in use, may be taken.
func (p *Plugin) withAdvice(err error, driver string, q createNetworkRequest, pools []network.Pool) error {
	for _, pool := range pools {
		if !errdefs.IsPermissionDenied(err) { // no subnet is in the way
			return err
		}
		if _, known := p.poolOf(q, pool.Subnet); !known {
			return fmt.Errorf("%w (%s; --ipam-driver %s chooses one that is free)", err, pool.Subnet,
				dockersName(driver))
		}
	}
	return err
}

// reserved says whether a subnet was asked of the IPAM drivers here. Another one, such as Docker's own, may choose a
// subnet that they have given to another network.
func (q createNetworkRequest) reserved(subnet netip.Prefix) bool {
	return slices.ContainsFunc(slices.Concat(q.IPv4Data, q.IPv6Data), func(data ipamData) bool {
		have, err := data.prefix()
		return err == nil && have == subnet && data.AddressSpace == addressSpace
	})
}

// poolOf is what the IPAM drivers have reserved for the network that is asked for.
func (p *Plugin) poolOf(q createNetworkRequest, subnet netip.Prefix) (poolRef, bool) {
	if !q.reserved(subnet) {
		return poolRef{}, false
	}
	return p.state.pool(subnet.String())
}

// dockersName is the name under which Docker knows a driver of the daemon's networks.
func dockersName(driver string) string {
	for name, d := range drivers {
		if d == driver {
			return name
		}
	}
	return driver
}

// named is the daemon's network that the user has named, by an option of the network or of its addresses; one without
// an id: there is none.
func (p *Plugin) named(
	ctx context.Context, d daemon, q createNetworkRequest, spec network.NetworkSpec, name string,
) (netRef, error) {
	for _, pool := range spec.Pools {
		if have, ok := p.poolOf(q, pool.Subnet); ok && !have.Own && name == "" {
			name = have.ID
		}
	}
	if name == "" {
		return netRef{}, nil
	}
	n, err := d.Network(ctx, name)
	if err != nil {
		return netRef{}, err
	}
	for _, pool := range spec.Pools {
		if !slices.ContainsFunc(n.IPAM.Config, func(c dockernet.IPAMConfig) bool { return c.Subnet == pool.Subnet }) {
			return netRef{}, fmt.Errorf("network %s of usernet has not the subnet %s: give --ipam-driver usernet "+
				"--ipam-opt network=%s as well", n.Name, pool.Subnet, n.Name)
		}
	}
	if kind, _ := network.DriverOf(spec.Driver); kind.Scope == network.ScopeGlobal && n.Driver != spec.Driver {
		return netRef{}, fmt.Errorf("network %s of usernet is of the driver %s: give -d usernet", n.Name, n.Driver)
	}
	if spec.Internal && !n.Internal {
		return netRef{}, fmt.Errorf("network %s of usernet is not internal: name one that was made with `usernet network "+
			"create --internal`", n.Name)
	}
	if len(spec.Options) > 0 {
		return netRef{}, fmt.Errorf("network %s of usernet is there with options of its own, and takes no others",
			n.Name)
	}
	return netRef{ID: n.ID}, nil
}

// spec is the network that Docker asks for, and the name of the daemon's that it is to be, where the user gave one.
func (q createNetworkRequest) spec(driver string) (spec network.NetworkSpec, name string, err error) {
	spec = network.NetworkSpec{
		Name:       "docker-" + short(q.NetworkID),
		Driver:     driver,
		Attachable: true,
		Labels:     map[string]string{labelNetwork: q.NetworkID},
	}
	if text, ok := q.Options[optionInternal]; ok {
		if err := json.Unmarshal(text, &spec.Internal); err != nil {
			return spec, "", fmt.Errorf("option %s: %w", optionInternal, err)
		}
	}
	if text, ok := q.Options[optionGeneric]; ok {
		if err := json.Unmarshal(text, &spec.Options); err != nil {
			return spec, "", fmt.Errorf("options: %w", err)
		}
	}
	name = spec.Options[optionNetwork]
	spec.Options = maps.Clone(spec.Options)
	delete(spec.Options, optionNetwork)
	v4, v6 := len(q.IPv4Data) > 0, len(q.IPv6Data) > 0
	spec.EnableIPv4, spec.EnableIPv6 = &v4, &v6
	for _, data := range append(slices.Clone(q.IPv4Data), q.IPv6Data...) {
		pool, err := data.pool()
		if err != nil {
			return spec, "", err
		}
		spec.Pools = append(spec.Pools, pool)
	}
	return spec, name, nil
}

// pool is one subnet that Docker, or its IPAM driver, has chosen.
func (d ipamData) pool() (network.Pool, error) {
	subnet, err := d.prefix()
	if err != nil {
		return network.Pool{}, fmt.Errorf("subnet: %w", err)
	}
	pool := network.Pool{Subnet: subnet, Configured: true}
	if d.Gateway != "" {
		if pool.Gateway, err = bareAddr(d.Gateway); err != nil {
			return pool, fmt.Errorf("gateway: %w", err)
		}
	}
	for name, text := range d.AuxAddresses {
		a, err := bareAddr(text)
		if err != nil {
			return pool, fmt.Errorf("auxiliary address %s: %w", name, err)
		}
		if pool.Aux == nil {
			pool.Aux = map[string]netip.Addr{}
		}
		pool.Aux[name] = a
	}
	return pool, nil
}

// bareAddr reads an address, with or without its subnet's length.
func bareAddr(s string) (netip.Addr, error) {
	bare, _, _ := strings.Cut(s, "/")
	return netip.ParseAddr(bare)
}

// deleteNetwork removes the daemon's network where it was made for Docker's. One that is gone is no error.
func (p *Plugin) deleteNetwork(ctx context.Context, d daemon, q endpointRequest) (any, error) {
	n, _ := p.state.network(q.NetworkID)
	if n.Own {
		if err := d.NetworkRemove(ctx, n.ID); err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
	}
	return nothing, p.state.change(func(c *content) { delete(c.Networks, q.NetworkID) })
}

// createEndpoint has the daemon make the interface in dockerd's network namespace. Traffic can flow when it returns.
func (p *Plugin) createEndpoint(ctx context.Context, d daemon, q endpointRequest) (any, error) {
	n, ok := p.state.network(q.NetworkID)
	if !ok {
		return nil, fmt.Errorf("network %s of Docker is not known here: remove it and make it again",
			short(q.NetworkID))
	}
	e, err := q.endpoint()
	if err != nil {
		return nil, err
	}
	pid, _ := caller(ctx)
	netns, err := p.netns(pid)
	if err != nil {
		return nil, err
	}
	defer netns.Close()
	made, err := d.Attach(ctx, api.AttachRequest{
		Key:   key(q.NetworkID, q.EndpointID),
		Moves: true,
		Spec: network.ContainerSpec{
			Name:        "docker-" + short(q.EndpointID),
			NetworkMode: n.ID,
			Labels:      map[string]string{labelEndpoint: q.EndpointID},
			Networks:    []network.NamedEndpointSpec{{Network: n.ID, EndpointSpec: e}},
		},
	}, netns)
	if err != nil {
		return nil, err
	}
	p.pending.release(e.IPv4, e.IPv6) // the endpoint has them now
	have := made.Endpoints[0]
	var answer createEndpointResponse // what Docker has given may not be repeated
	if e.MAC == (network.MAC{}) {
		answer.Interface.MacAddress = have.MAC.String()
	}
	if !e.IPv4.IsValid() && have.IPv4.IsValid() {
		answer.Interface.Address = have.IPv4.String()
	}
	if !e.IPv6.IsValid() && have.IPv6.IsValid() {
		answer.Interface.AddressIPv6 = have.IPv6.String()
	}
	return answer, nil
}

// endpoint is what Docker has chosen.
func (q endpointRequest) endpoint() (network.EndpointSpec, error) {
	if len(q.EndpointID) < len("0123456789ab") {
		return network.EndpointSpec{}, fmt.Errorf("endpoint %q is none of Docker's", q.EndpointID)
	}
	e := network.EndpointSpec{Interface: interfaceName(q.EndpointID)}
	if q.Interface == nil {
		return e, nil
	}
	for text, addr := range map[string]*netip.Addr{q.Interface.Address: &e.IPv4, q.Interface.AddressIPv6: &e.IPv6} {
		if text == "" {
			continue
		}
		var err error
		if *addr, err = bareAddr(text); err != nil {
			return e, fmt.Errorf("address: %w", err)
		}
	}
	if q.Interface.MacAddress != "" {
		var err error
		if e.MAC, err = network.ParseMAC(q.Interface.MacAddress); err != nil {
			return e, err
		}
	}
	return e, nil
}

func (p *Plugin) deleteEndpoint(ctx context.Context, d daemon, q endpointRequest) (any, error) {
	p.namer.forget(q.EndpointID)
	return nothing, d.Detach(ctx, key(q.NetworkID, q.EndpointID))
}

// certainly has endpoints deleted later that the route f cannot delete, since the daemon hangs for one: Docker forgets
// an endpoint whatever it is answered.
func (p *Plugin) certainly(f route) route {
	return func(ctx context.Context, body []byte) (any, error) {
		answer, err := f(ctx, body)
		var q endpointRequest
		if err == nil || p.namer == nil || json.Unmarshal(body, &q) != nil || q.EndpointID == "" {
			return answer, err
		}
		p.namer.insist("endpoint "+short(q.EndpointID)+", which Docker has deleted", func(ctx context.Context) error {
			d, err := p.namer.daemon(ctx)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, callLimit)
			defer cancel()
			return d.Detach(ctx, key(q.NetworkID, q.EndpointID))
		})
		return answer, err
	}
}

// attachment is the container that stands for an endpoint in the daemon.
func attachment(ctx context.Context, d daemon, q endpointRequest) (network.Container, error) {
	list, err := d.Attachments(ctx, key(q.NetworkID, q.EndpointID))
	if err != nil {
		return network.Container{}, err
	}
	if len(list) != 1 || len(list[0].Endpoints) != 1 {
		return network.Container{}, fmt.Errorf("usernet has no endpoint %s: start the container again",
			short(q.EndpointID))
	}
	return list[0], nil
}

// join says which interface dockerd is to move to the container, and what routes it has.
func (p *Plugin) join(ctx context.Context, d daemon, q endpointRequest) (any, error) {
	c, err := attachment(ctx, d, q)
	if err != nil {
		return nil, err
	}
	e := c.Endpoints[0]
	answer := joinResponse{DisableGatewayService: true} // usernet is the way out, not a second bridge
	answer.InterfaceName.SrcName, answer.InterfaceName.DstPrefix = e.Interface, "eth"
	if e.Gateway4.IsValid() {
		answer.Gateway = e.Gateway4.String()
	}
	if e.Gateway6.IsValid() {
		answer.GatewayIPv6 = e.Gateway6.String()
	}
	p.namer.add(q.EndpointID, c.ID, e.Key)
	return answer, nil
}
