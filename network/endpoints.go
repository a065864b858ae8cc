package network

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/usernet/usernet/internal/errdefs"
)

// Connect gives a container an endpoint on one more network.
func (m *Model) Connect(networkRef, containerRef string, spec EndpointSpec) (c *Container, e *Endpoint, err error) {
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
		if e.Interface, err = interfaceName(c, n, spec.Interface); err != nil {
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
	for _, e := range c.Endpoints {
		if o := m.networks[e.NetworkID]; o != nil && !(o.HasInterfaces() && n.HasInterfaces()) {
			return errdefs.Invalid(
				"container cannot be connected to multiple networks with one of the networks in private (none) mode")
		}
	}
	return nil
}

// interfaceForm is what the kernel takes for a name (dev_valid_name in net/core/dev.c), without colons.
var interfaceForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[^/:\s]{1,15}$`)
})

// interfaceName is the name of a new interface in c: the one that was asked for, or a free one.
func interfaceName(c *Container, n *Network, want string) (string, error) {
	switch {
	case want == "":
		return freeInterface(c, n), nil
	case !interfaceForm().MatchString(want) || want == "." || want == ".." || want == "lo":
		return "", errdefs.Invalid(
			"invalid interface name %q: give up to 15 characters without spaces, slashes and colons", want)
	case slices.ContainsFunc(c.Endpoints, func(e *Endpoint) bool { return e.Interface == want }):
		return "", errdefs.Conflict("container %s has an interface %s already", c.Name, want)
	}
	return want, nil
}

func freeInterface(c *Container, n *Network) string {
	prefix := n.Settings().InterfacePrefix
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s%d", prefix, i)
		if !slices.ContainsFunc(c.Endpoints, func(e *Endpoint) bool { return e.Interface == name }) {
			return name
		}
	}
}
