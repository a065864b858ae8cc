package network

import (
	"strings"

	"github.com/usernet/usernet/internal/errdefs"
)

// networkMode is the mode that was asked for: the network of the first endpoint, "container:" and who, or "host".
func networkMode(spec *ContainerSpec) string {
	mode := spec.NetworkMode
	if mode == "" && len(spec.Networks) > 0 {
		mode = spec.Networks[0].Network
	}
	if mode == "" || mode == "default" {
		mode = BridgeName
	}
	return mode
}

// setMode resolves the network mode and refuses what does not go with it.
func (m *Model) setMode(c *Container, spec *ContainerSpec) (warnings []string, err error) {
	mode := networkMode(spec)
	if spec.Attached && (mode == HostName || strings.HasPrefix(mode, "container:")) {
		return nil, errdefs.Invalid(
			"network mode %s is not for what is attached: its network namespace is there already; give a network's "+
				"name",
			mode)
	}
	if owner, ok := strings.CutPrefix(mode, "container:"); ok {
		if owner == "" {
			return nil, errdefs.Invalid("Invalid network mode: invalid container format container:<name|id>")
		}
		o, err := m.findContainer(owner)
		if err != nil {
			return nil, err
		}
		if err := sharedConflict(spec); err != nil {
			return nil, err
		}
		if o.Status != Running {
			return nil, errdefs.Conflict("cannot join network of a non running container: %s", o.ID)
		}
		if first, ok := strings.CutPrefix(o.NetworkMode, "container:"); ok {
			if f := m.containers[first]; f != nil && f.Status == Running {
				o = f // a guest's network is its owner's
			}
		}
		c.NetworkMode = "container:" + o.ID
		spec.Networks = nil
		return nil, nil
	}
	n, err := m.findNetwork(mode)
	if err != nil {
		return nil, err
	}
	c.NetworkMode = n.Name
	if len(spec.Networks) == 0 {
		spec.Networks = []NamedEndpointSpec{{Network: n.Name}}
	}
	if c.Links, err = m.checkLinks(n, spec); err != nil {
		return nil, err
	}
	if !n.HasInterfaces() && len(spec.Networks) > 1 {
		return nil, errdefs.Invalid(
			"conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	if n.IsHost() {
		if len(spec.Ports) > 0 || spec.PublishAll {
			warnings = append(warnings, "Published ports are discarded when using host network mode")
			c.Ports, c.PublishAll = nil, false
		}
	}
	return warnings, nil
}

// checkLinks returns the links of a container on the default bridge, which has to know the running containers behind
// them. On other networks links belong to the endpoint, and their targets may come later.
func (m *Model) checkLinks(n *Network, spec *ContainerSpec) ([]string, error) {
	links := spec.Links
	if len(links) > 0 && n.IsHost() {
		return nil, errdefs.Invalid(
			"conflicting options: host type networking can't be used with links. This would result in undefined " +
				"behavior")
	}
	if n.Name != BridgeName {
		for i := range spec.Networks {
			if e := &spec.Networks[i]; i == 0 && len(e.Links) == 0 && n.HasInterfaces() {
				e.Links = links
			}
		}
		return nil, nil
	}
	for i := range spec.Networks {
		links, spec.Networks[i].Links = append(links, spec.Networks[i].Links...), nil
	}
	for _, l := range ParseLinks(links) {
		t, err := m.findContainer(l.Target)
		if err != nil {
			return nil, errdefs.Invalid("could not get container for %s: %w", l.Target, err)
		}
		if t.NetworkMode == HostName {
			return nil, errdefs.Invalid(
				"conflicting options: host type networking can't be used with links. This would result in undefined " +
					"behavior")
		}
		if t.Status != Running {
			return nil, errdefs.Conflict("Cannot link to a non running container: /%s AS /%s/%s", t.Name,
				strings.TrimPrefix(spec.Name, "/"), l.Alias)
		}
	}
	return links, nil
}

// sharedConflict is Docker's refusal of what a container that shares another's network cannot have, in Docker's order.
func sharedConflict(spec *ContainerSpec) error {
	links, mac := len(spec.Links) > 0, false
	for i := range spec.Networks {
		e := &spec.Networks[i].EndpointSpec
		links, mac = links || len(e.Links) > 0, mac || e.MAC != (MAC{})
		if err := userDefinedOnly(e); err != nil {
			return err
		}
	}
	what := ""
	switch {
	case spec.Hostname != "":
		what = "hostname and the network mode"
	case links:
		what = "container type network can't be used with links. This would result in undefined behavior"
	case len(spec.DNS) > 0:
		what = "dns and the network mode"
	case len(spec.ExtraHosts) > 0:
		what = "custom host-to-IP mapping and the network mode"
	case mac:
		what = "mac-address and the network mode"
	case len(spec.Ports) > 0 || spec.PublishAll:
		what = "port publishing and the container type network mode"
	case len(spec.Exposed) > 0:
		what = "port exposing and the container type network mode"
	default:
		return nil
	}
	return errdefs.Invalid("conflicting options: %s", what)
}

// userDefinedOnly refuses what works on user-defined networks only.
func userDefinedOnly(e *EndpointSpec) error {
	switch {
	case e.IPv4.IsValid() || e.IPv6.IsValid():
		return errdefs.Invalid("user specified IP address is supported on user defined networks only")
	case len(e.Aliases) > 0:
		return errdefs.Invalid("network-scoped aliases are only supported for user-defined networks")
	}
	return nil
}
