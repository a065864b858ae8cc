package network

import (
	"encoding/csv"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/usernet/usernet/internal/errdefs"
)

// ParseAttachment reads a value of --network: a name, or name=NAME,alias=...,ip=...,ip6=...,mac-address=...,
// link-local-ip=...,driver-opt=KEY=VALUE,gw-priority=N,interface=NAME,route=CIDR[=GATEWAY],vlan=N,dhcp=true.
func ParseAttachment(spec string) (NamedEndpointSpec, error) {
	var a NamedEndpointSpec
	if !strings.Contains(spec, "=") {
		if spec == "" {
			return a, errdefs.Invalid("network name/id is not specified")
		}
		a.Network = spec
		return a, nil
	}
	fields, err := csv.NewReader(strings.NewReader(spec)).Read()
	if err != nil {
		return a, errdefs.Invalid("invalid network %q: %w", spec, err)
	}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		if !ok || key == "" {
			return a, errdefs.Invalid("invalid field %s", field)
		}
		if err := a.set(key, value); err != nil {
			return a, err
		}
	}
	if a.Network == "" {
		return a, errdefs.Invalid("network name/id is not specified")
	}
	return a, nil
}

func (a *NamedEndpointSpec) set(key, value string) (err error) {
	switch key {
	case "name":
		a.Network = value
	case "alias":
		a.Aliases = append(a.Aliases, value)
	case "ip":
		a.IPv4, err = ParseIPv4(value)
	case "ip6":
		a.IPv6, err = ParseIPv6(value)
	case "mac-address":
		a.MAC, err = ParseMAC(value)
	case "link-local-ip":
		var ip netip.Addr
		ip, err = ParseLinkLocal(value)
		a.LinkLocal = append(a.LinkLocal, ip)
	case "driver-opt":
		k, v, ok := strings.Cut(value, "=")
		if !ok || k == "" {
			return errdefs.Invalid("invalid key value pair format in driver options")
		}
		if a.DriverOpts == nil {
			a.DriverOpts = map[string]string{}
		}
		a.DriverOpts[strings.TrimSpace(k)] = strings.TrimSpace(v)
	case "interface":
		a.Interface = value
	case "route":
		var r Route
		r, err = ParseRoute(value)
		a.Routes = append(a.Routes, r)
	case "vlan":
		a.VLAN, err = ParseVLAN(value)
	case "dhcp":
		if a.DHCP, err = strconv.ParseBool(value); err != nil {
			return errdefs.Invalid("invalid dhcp (%s): give true or false", value)
		}
	case "gw-priority":
		if a.GwPriority, err = strconv.Atoi(value); err != nil {
			return errdefs.Invalid("invalid gw-priority (%s): give a whole number", value)
		}
	default:
		return errdefs.Invalid("invalid field key %s", key)
	}
	return err
}

// ParseIPv4 reads a value of --ip.
func ParseIPv4(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || a.IsUnspecified() {
		return netip.Addr{}, errdefs.Invalid("invalid IPv4 address: %s", s)
	}
	return a, nil
}

// ParseIPv6 reads a value of --ip6.
func ParseIPv6(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() {
		return netip.Addr{}, errdefs.Invalid("invalid IPv6 address: %s", s)
	}
	return a, nil
}

// ParseLinkLocal reads a value of --link-local-ip: a further address of the interface, of 169.254.0.0/16 (RFC 3927) or
// fe80::/10 (RFC 4291, 2.5.6).
func ParseLinkLocal(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || !a.IsLinkLocalUnicast() {
		return netip.Addr{}, errdefs.Invalid(
			"invalid link-local IP address: %s: give one in 169.254.0.0/16 or fe80::/10", s)
	}
	return a, nil
}

// LinkEnvironment are the variables that c's links on the default bridge add to the environment of its commands, as
// Docker's legacy links do. A target that find does not know adds none.
func LinkEnvironment(c *Container, find func(name string) (*Container, error)) []string {
	var env []string
	for _, l := range ParseLinks(c.Links) {
		if target, err := find(l.Target); err == nil {
			env = append(env, linkVariables(c.Name, l.Alias, target)...)
		}
	}
	return env
}

// linkVariables are those of one link: self is the linking container, target the linked one, found under alias.
func linkVariables(self, alias string, target *Container) []string {
	ip := ""
	for _, e := range target.Endpoints {
		switch {
		case e.Network != BridgeName:
		case e.IPv4.IsValid():
			ip = e.IPv4.Addr().String()
		case e.IPv6.IsValid():
			ip = "[" + e.IPv6.Addr().String() + "]"
		}
	}
	if ip == "" {
		return nil
	}
	name := strings.ReplaceAll(strings.ToUpper(alias), "-", "_")
	bare := strings.Trim(ip, "[]")
	ports := slices.Clone(target.Exposed)
	slices.SortFunc(ports, func(a, b PortProto) int {
		if a.Proto != b.Proto {
			return protoOrder(a.Proto) - protoOrder(b.Proto)
		}
		return int(a.Port) - int(b.Port)
	})
	var env []string
	for i := 0; i < len(ports); {
		j := i + 1
		for j < len(ports) && ports[j].Proto == ports[i].Proto && ports[j].Port == ports[j-1].Port+1 {
			j++
		}
		for k, p := range ports[i:j] {
			port, prefix := strconv.Itoa(
				int(p.Port)), name+"_PORT_"+strconv.Itoa(int(p.Port))+"_"+strings.ToUpper(string(p.Proto))
			url := string(p.Proto) + "://" + ip + ":" + port
			if i+k == 0 {
				env = append(env, name+"_PORT="+url)
			}
			env = append(env, prefix+"="+url, prefix+"_ADDR="+bare, prefix+"_PORT="+port,
				prefix+"_PROTO="+string(p.Proto))
			if k == 0 && j-i > 1 {
				env = append(env, prefix+"_START="+url, prefix+"_PORT_START="+port,
					prefix+"_PORT_END="+strconv.Itoa(int(ports[j-1].Port)))
			}
		}
		i = j
	}
	env = append(env, name+"_NAME=/"+self+"/"+alias)
	for _, v := range target.Env {
		if k, _, ok := strings.Cut(v, "="); ok && k != "HOME" && k != "PATH" {
			env = append(env, name+"_ENV_"+v)
		}
	}
	return env
}

// protoOrder puts TCP first, since ALIAS_PORT names the first port.
func protoOrder(p Protocol) int {
	return slices.Index([]Protocol{TCP, UDP, SCTP}, p)
}
