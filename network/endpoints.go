package network

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/usernet/usernet/internal/errdefs"
)

// Connect gives a container an endpoint on one more network.
func (m *Model) Connect(networkRef, containerRef string, spec EndpointSpec) (c *Container, e *Endpoint, err error) {
	if c, err := m.ContainerWithoutPorts(containerRef); err == nil { // else it is said below
		spec.hostname = c.NameOutside()
	}
	if err := m.reserve(networkRef, &spec); err != nil {
		return nil, nil, err
	}
	err = m.update(func() (err error) {
		c, e, err = m.connect(networkRef, containerRef, spec)
		return err
	})
	if err != nil || !e.IPv4.IsValid() && !e.IPv6.IsValid() {
		m.release(spec.reserved)
	}
	return c, e, err
}

func (m *Model) connect(networkRef, containerRef string, spec EndpointSpec) (*Container, *Endpoint, error) {
	c, err := m.findContainer(containerRef)
	if err != nil {
		return nil, nil, err
	}
	next := c.clone()
	e, err := m.addEndpoint(next, networkRef, spec)
	if err != nil {
		return nil, nil, err
	}
	if err := m.save(next); err != nil {
		return nil, nil, err
	}
	return next.clone(), e.clone(), nil
}

// Disconnect takes a container's endpoint on a network away. With force, a container that does not run is also
// disconnected from a network that was removed meanwhile: networkRef is then the network's name or full id.
func (m *Model) Disconnect(networkRef, containerRef string, force bool) (c *Container, e *Endpoint, err error) {
	err = m.update(func() (err error) {
		c, e, err = m.disconnect(networkRef, containerRef, force)
		return err
	})
	if err == nil {
		m.releaseEndpoints(e)
	}
	return c, e, err
}

func (m *Model) disconnect(networkRef, containerRef string, force bool) (*Container, *Endpoint, error) {
	c, err := m.findContainer(containerRef)
	if err != nil {
		return nil, nil, err
	}
	n, err := m.findNetwork(networkRef)
	gone := err != nil && force && c.Status != Running
	switch {
	case gone:
		n = &Network{ID: networkRef, Name: networkRef}
	case err != nil:
		return nil, nil, err
	}
	if n.IsHost() {
		return nil, nil, errdefs.Invalid(
			"cannot disconnect container from host network - container was created in host network mode")
	}
	i := slices.IndexFunc(c.Endpoints,
		func(e *Endpoint) bool { return e.NetworkID == n.ID || gone && e.Network == n.Name })
	switch {
	case i < 0 && gone:
		return nil, nil, err
	case i < 0:
		return nil, nil, errdefs.Forbidden("container %s is not connected to network %s", c.ID, n.Name)
	}
	next := c.clone()
	removed := next.Endpoints[i]
	next.Endpoints = slices.Delete(next.Endpoints, i, i+1)
	if err := m.save(next); err != nil {
		return nil, nil, err
	}
	return next.clone(), removed, nil
}

// addEndpoint checks spec, chooses addresses and appends the endpoint to c.
func (m *Model) addEndpoint(c *Container, networkRef string, spec EndpointSpec) (*Endpoint, error) {
	n, err := m.findNetwork(networkRef)
	if err != nil {
		return nil, err
	}
	if n.ConfigOnly {
		return nil, errdefs.Forbidden("cannot create endpoint on configuration-only network")
	}
	if isPredefined(n.Name) { // before all else, as in Docker
		if err := userDefinedOnly(&spec); err != nil {
			return nil, err
		}
	}
	for _, e := range c.Endpoints {
		if e.NetworkID == n.ID {
			return nil, errdefs.Forbidden("endpoint with name %s already exists in network %s", c.Name, n.Name)
		}
	}
	if err := m.mayJoin(c, n); err != nil {
		return nil, err
	}
	if err := checkOptions(spec.DriverOpts, EndpointOptions, "driver option"); err != nil {
		return nil, err
	}
	e := &Endpoint{
		ID:            newID(),
		NetworkID:     n.ID,
		Network:       n.Name,
		Aliases:       spec.Aliases,
		Links:         spec.Links,
		DriverOpts:    spec.DriverOpts,
		Key:           spec.Key,
		Unconfigured:  spec.Unconfigured,
		SelfAddressed: spec.SelfAddressed,
		GwPriority:    spec.GwPriority,
		LinkLocal:     spec.LinkLocal,
		WantIPv4:      spec.IPv4,
		WantIPv6:      spec.IPv6,
		WantMAC:       spec.MAC,
		Bandwidth:     spec.Bandwidth,
		Routes:        spec.Routes,
		VLAN:          spec.VLAN,
		DHCP:          spec.reserved.leases(false),
		Autoconf:      spec.reserved.leases(true),
	}
	if err := checkRouting(&spec); err != nil {
		return nil, err
	}
	if spec.reserved != nil {
		if spec.reserved.network.ID != n.ID {
			return nil, errdefs.Conflict("network %s was made anew meanwhile: try again", n.Name)
		}
		e.ID = spec.reserved.endpoint
	}
	if n.HasInterfaces() && c.Status != Exited { // what has ended holds no addresses
		if err := m.address(n, e, spec.reserved); err != nil {
			return nil, err
		}
		if e.Interface, err = interfaceName(c, n, cmp.Or(spec.Interface, e.Settings().Interface)); err != nil {
			return nil, err
		}
	}
	c.Endpoints = append(c.Endpoints, e)
	return e, nil
}

// mayJoin refuses combinations of modes: only networks with interfaces go together.
func (m *Model) mayJoin(c *Container, n *Network) error {
	if strings.HasPrefix(c.NetworkMode, "container:") || c.NetworkMode == HostName && !n.IsHost() {
		return errdefs.Invalid(
			"container sharing network namespace with another container or host cannot be connected to any other " +
				"network")
	}
	if c.NetworkMode != HostName && n.IsHost() {
		return errdefs.Invalid(
			"cannot connect container to host network - container must be created in host network mode")
	}
	if c.IsVM() && (len(c.Endpoints) > 0 || !n.HasInterfaces()) {
		return errdefs.Invalid("a virtual machine's socket is for one network that has interfaces: attach another " +
			"socket, under another name, for each other network")
	}
	if err := n.HoldsEgress(c); err != nil {
		return err
	}
	for _, e := range c.Endpoints {
		if o := m.networks[e.NetworkID]; o != nil && !(o.HasInterfaces() && n.HasInterfaces()) {
			return errdefs.Invalid(
				"container cannot be connected to multiple networks with one of the networks in private (none) mode")
		}
	}
	return nil
}

// address chooses the endpoint's addresses and MAC. Where an Allocator has reserved addresses, only those count.
func (m *Model) address(n *Network, e *Endpoint, r *reservation) error {
	used := m.taken(n.ID)
	for _, want := range []netip.Addr{e.WantIPv4, e.WantIPv6} {
		if want.IsValid() {
			if err := checkWanted(n, want, used, e.Key != ""); err != nil {
				return err
			}
		}
	}
	for _, a := range e.LinkLocal {
		if used.has(a) {
			return errdefs.Forbidden("Address already in use")
		}
		used.more[a] = true
	}
	for i := range n.Pools {
		e.addressFrom(&n.Pools[i], used, r)
	}
	for _, f := range []struct {
		version int
		missing bool
	}{{4, n.EnableIPv4 && !e.IPv4.IsValid()}, {6, n.EnableIPv6 && !e.IPv6.IsValid()}} {
		if f.missing {
			return errdefs.Internal("no available IPv%d addresses on this network's address pools: %s (%s)", f.version,
				n.Name, n.ID)
		}
	}
	if n.Internal {
		e.Gateway4, e.Gateway6 = netip.Addr{}, netip.Addr{}
	}
	if r != nil && r.mac != (MAC{}) {
		e.MAC = r.mac
	}
	return e.chooseMAC(n, used.macs)
}

// addressFrom gives the endpoint an address of a pool: the one that was reserved or asked for, else the lowest free
// one. It changes nothing where the endpoint has an address of that family, or the pool has none for it.
func (e *Endpoint) addressFrom(p *Pool, used taken, r *reservation) {
	v4 := p.Subnet.Addr().Is4()
	addr := e.WantIPv4
	if !v4 {
		addr = e.WantIPv6
	}
	if v4 && e.IPv4.IsValid() || !v4 && e.IPv6.IsValid() || addr.IsValid() && !p.Subnet.Contains(addr) {
		return
	}
	if r.reserves(!v4) {
		if addr = r.in(p); !addr.IsValid() {
			return
		}
	}
	if !addr.IsValid() {
		addr = r.choice(p, used)
	}
	if !addr.IsValid() {
		addr = e.lastAddress(p, used)
	}
	if !addr.IsValid() {
		addr = e.ownAddress(p, used)
	}
	if !addr.IsValid() {
		var ok bool
		if addr, ok = used.lowestFree(p); !ok {
			return
		}
	}
	if v4 {
		e.IPv4, e.Gateway4 = netip.PrefixFrom(addr, p.Subnet.Bits()), p.Gateway
	} else {
		e.IPv6, e.Gateway6 = netip.PrefixFrom(addr, p.Subnet.Bits()), p.Gateway
	}
}

// lastAddress is the address in a pool that the endpoint had when its container ran last; invalid: it had none there,
// or it is another's now.
func (e *Endpoint) lastAddress(p *Pool, used taken) netip.Addr {
	last := e.LastIPv4
	if p.Subnet.Addr().Is6() {
		last = e.LastIPv6
	}
	if !last.IsValid() || !p.Subnet.Contains(last) || used.has(last) || p.Reserved(last) {
		return netip.Addr{}
	}
	return last
}

// ownAddress is the IPv6 address in a pool that an endpoint which makes its own has; invalid: it makes none, or another
// endpoint has it. It follows from the endpoint's MAC address: the one that was asked for, or the one that it will get.
func (e *Endpoint) ownAddress(p *Pool, used taken) netip.Addr {
	if !e.SelfAddressed || p.Subnet.Addr().Is4() || p.Subnet.Bits() != 64 {
		return netip.Addr{}
	}
	mac := e.WantMAC
	if mac == (MAC{}) {
		if !e.IPv4.IsValid() {
			return netip.Addr{} // the MAC is to follow from the address
		}
		mac = macFor(e.IPv4.Addr(), netip.Addr{})
	}
	a := p.Subnet.Addr().As16()
	copy(a[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
	addr := netip.AddrFrom16(a)
	if used.has(addr) || p.Reserved(addr) {
		return netip.Addr{}
	}
	return addr
}

// chooseMAC gives the endpoint the MAC address that was asked for, or one that follows from its addresses and is not in
// use on the network.
func (e *Endpoint) chooseMAC(n *Network, inUse map[MAC]int) error {
	if e.WantMAC != (MAC{}) {
		e.MAC = e.WantMAC
	}
	if one := n.Settings().OneMAC; one != (MAC{}) {
		if err := onlyMAC(n, e.WantMAC, one, inUse); err != nil {
			return err
		}
		e.MAC = one
	}
	if e.MAC == (MAC{}) {
		e.MAC = macFor(e.IPv4.Addr(), e.IPv6.Addr())
		for inUse[e.MAC] > 0 {
			binary.BigEndian.PutUint32(e.MAC[2:], binary.BigEndian.Uint32(e.MAC[2:])+1<<24)
		}
	}
	if inUse[e.MAC] > 0 {
		return errdefs.Forbidden("MAC address %s is already in use on network %s", e.MAC, n.Name)
	}
	return nil
}

// onlyMAC refuses a second container where the device of a network takes one MAC address.
func onlyMAC(n *Network, want, one MAC, inUse map[MAC]int) error {
	const many = "a macvtap in mode passthru, or a TAP in a bridge, takes many"
	switch {
	case want != (MAC{}) && want != one:
		return errdefs.Invalid("network %s is on a device that takes the MAC address %s alone: %s", n.Name, one, many)
	case inUse[one] > 0:
		return errdefs.Forbidden("network %s is on a device that takes one MAC address, which a container has: %s",
			n.Name, many)
	}
	return nil
}

// checkWanted checks an address that the user asked for. A runtime that attaches a namespace may choose addresses
// itself, and may name one of a subnet that was drawn.
func checkWanted(n *Network, a netip.Addr, used taken, runtime bool) error {
	configured, inside := runtime, false
	for i := range n.Pools {
		p := &n.Pools[i]
		if p.Subnet.Addr().Is4() != a.Is4() {
			continue
		}
		configured = configured || p.Configured
		if p.Subnet.Contains(a) {
			inside = true
			if n.driver().RangeOnly && p.Range.IsValid() && !p.Range.Contains(a) {
				return errdefs.Invalid("%s is of another host: this one has the addresses of %s", a, p.Range)
			}
			if used.has(a) || p.Reserved(a) {
				return errdefs.Forbidden("Address already in use")
			}
		}
	}
	switch {
	case !configured:
		return errdefs.Invalid(
			"user specified IP address is supported only when connecting to networks with user configured subnets",
		)
	case !inside:
		return errdefs.Invalid("no configured subnet contains IP address %s", a)
	}
	return nil
}

// HoldsEgress says why the rules of a container about where it may connect to would not hold on the network; nil where
// they do, or it has none.
func (n *Network) HoldsEgress(c *Container) error {
	if n.IsDirect() && (c.Egress != "" || len(c.AllowEgress) > 0) {
		return errdefs.Invalid("container %s has rules about where it may connect to, and on network %s nobody would "+
			"hold them: its containers reach the physical network directly", c.Name, n.Name)
	}
	return nil
}
