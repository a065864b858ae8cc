package cni

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/runtimes/client"
)

// config is the plugin's part of a network configuration, as it comes on standard input.
type config struct {
	types.PluginConf
	Network     string            `json:"network"`
	Create      *bool             `json:"create"`
	Subnet      string            `json:"subnet"`
	Gateway     string            `json:"gateway"`
	IPv6        bool              `json:"ipv6"`
	Internal    bool              `json:"internal"`
	Options     map[string]string `json:"options"`
	Egress      string            `json:"egress"`
	AllowEgress []string          `json:"allowEgress"`
	Publish     string            `json:"publish"`
	Socket      string            `json:"socket"`

	RuntimeConfig struct {
		PortMappings []portMapping `json:"portMappings"`
		IPs          []string      `json:"ips"`
		MAC          string        `json:"mac"`
		Aliases      aliases       `json:"aliases"`
		DNS          runtimeDNS    `json:"dns"`
		Bandwidth    bandwidth     `json:"bandwidth"`
	} `json:"runtimeConfig"`
	Args struct {
		CNI struct {
			IPs    []string `json:"ips"`
			Labels []struct {
				Key   string `json:"key"`
				Value string `json:"value"`
			} `json:"labels"`
		} `json:"cni"`
	} `json:"args"`
}

// portMapping is one of CNI's conventions (CONVENTIONS.md of the specification).
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// aliases are names on the network: a list, as CNI's conventions have them, or lists by the network's name in CNI, as
// Podman gives them.
type aliases struct {
	list      []string
	byNetwork map[string][]string
}

func (a *aliases) UnmarshalJSON(text []byte) error {
	if json.Unmarshal(text, &a.list) == nil {
		return nil
	}
	return json.Unmarshal(text, &a.byNetwork)
}

// of are those on a network.
func (a *aliases) of(network string) []string {
	return append(slices.Clone(a.list), a.byNetwork[network]...)
}

// runtimeDNS is what a runtime says of name servers: by the keys of CNI's conventions, or by those that DNS has
// elsewhere in CNI.
type runtimeDNS struct {
	Servers  []string `json:"servers"`
	Searches []string `json:"searches"`
	types.DNS
}

// dns is what the container is given: the runtime's word, or else the configuration's.
func (c *config) dns() types.DNS {
	r := c.RuntimeConfig.DNS
	r.Nameservers, r.Search = append(r.Servers, r.Nameservers...), append(r.Searches, r.Search...)
	if len(r.Nameservers)+len(r.Search)+len(r.Options) > 0 {
		return r.DNS
	}
	return c.DNS
}

// envArgs are the pairs of CNI_ARGS that mean something here.
type envArgs struct {
	types.CommonArgs
	IP                        types.UnmarshallableString
	MAC                       types.UnmarshallableString
	K8S_POD_NAME              types.UnmarshallableString //nolint:revive // CNI_ARGS names the fields
	K8S_POD_NAMESPACE         types.UnmarshallableString //nolint:revive // CNI_ARGS names the fields
	NERDCTL_CNI_DHCP_HOSTNAME types.UnmarshallableString //nolint:revive // CNI_ARGS names the fields
}

// invalid is an error in what the runtime or the configuration says.
func invalid(code uint, format string, args ...any) *types.Error {
	return types.NewError(code, fmt.Sprintf(format, args...), "")
}

// parse reads a configuration.
func parse(stdin []byte) (*config, error) {
	var c config
	if err := json.Unmarshal(stdin, &c); err != nil {
		return nil, invalid(types.ErrDecodingFailure, "network configuration: %v", err)
	}
	if c.Network == "" {
		c.Network = c.Name
	}
	switch c.Publish {
	case "", "auto", "always", "never":
	default:
		return nil, invalid(types.ErrInvalidNetworkConfig, `publish is %q: give "auto", "always" or "never"`, c.Publish)
	}
	if c.IPAM.Type != "" {
		return nil, invalid(
			types.ErrUnsupportedField,
			"ipam %q: usernet gives the addresses itself; give its network a subnet, and a container ips",
			c.IPAM.Type,
		)
	}
	if err := c.RuntimeConfig.Bandwidth.check(); err != nil {
		return nil, err
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, invalid(types.ErrDecodingFailure, "prevResult: %v", err)
	}
	return &c, nil
}

// networkSpec is the network that is made where it is not there.
func (c *config) networkSpec() (network.NetworkSpec, error) {
	spec := network.NetworkSpec{
		Name:       c.Network,
		Internal:   c.Internal,
		Options:    c.Options,
		Attachable: true,
		Labels:     map[string]string{"usernet.cni": c.Name},
	}
	if c.IPv6 {
		spec.EnableIPv6 = &c.IPv6
	}
	if c.Subnet == "" {
		if c.Gateway != "" {
			return spec, invalid(types.ErrInvalidNetworkConfig, "gateway %s: give the subnet, too", c.Gateway)
		}
		return spec, nil
	}
	subnet, err := netip.ParsePrefix(c.Subnet)
	if err != nil {
		return spec, invalid(types.ErrInvalidNetworkConfig, "subnet: %v", err)
	}
	pool := network.Pool{Subnet: subnet.Masked()}
	if c.Gateway != "" {
		if pool.Gateway, err = netip.ParseAddr(c.Gateway); err != nil {
			return spec, invalid(types.ErrInvalidNetworkConfig, "gateway: %v", err)
		}
	}
	spec.Pools = []network.Pool{pool}
	return spec, nil
}

// fits says why a network that is there is not the one that the configuration describes.
func (c *config) fits(n dockernet.Inspect) error {
	switch {
	case !client.HasInterfaces(n):
		return invalid(types.ErrInvalidNetworkConfig, "network %s: nothing can be attached to it: name another", n.Name)
	case c.Internal && !n.Internal:
		return invalid(types.ErrInvalidNetworkConfig, "usernet has a network %s already, and it is not internal: "+
			"name another, or remove it with `usernet network rm %[1]s`", n.Name)
	case c.Subnet == "":
		return nil
	}
	subnet, err := netip.ParsePrefix(c.Subnet)
	if err != nil {
		return invalid(types.ErrInvalidNetworkConfig, "subnet: %v", err)
	}
	for _, have := range n.IPAM.Config {
		if have.Subnet == subnet.Masked() {
			return nil
		}
	}
	return invalid(types.ErrInvalidNetworkConfig, "usernet has a network %s already, and %s is none of its subnets: "+
		"name another, or remove it with `usernet network rm %[1]s`", n.Name, subnet)
}

// endpoint is what the runtime asks for on the network.
func (c *config) endpoint(args *skel.CmdArgs, env envArgs) (network.EndpointSpec, error) {
	e := network.EndpointSpec{
		Interface: args.IfName,
		Aliases:   c.RuntimeConfig.Aliases.of(c.Name),
		Bandwidth: network.Bandwidth(c.RuntimeConfig.Bandwidth),
	}
	ips := append(append([]string(nil), c.RuntimeConfig.IPs...), c.Args.CNI.IPs...)
	if env.IP != "" {
		ips = append(ips, strings.Split(string(env.IP), ",")...)
	}
	for _, s := range ips {
		bare, _, _ := strings.Cut(s, "/") // the length is the subnet's
		ip, err := netip.ParseAddr(bare)
		if err != nil {
			return e, invalid(types.ErrInvalidNetworkConfig, "address %q: %v", s, err)
		}
		have := &e.IPv4
		if ip.Is6() {
			have = &e.IPv6
		}
		if have.IsValid() && *have != ip {
			return e, invalid(
				types.ErrInvalidNetworkConfig,
				"addresses %s and %s: an interface has one of each family",
				*have,
				ip,
			)
		}
		*have = ip
	}
	mac := c.RuntimeConfig.MAC
	if mac == "" {
		mac = string(env.MAC)
	}
	if mac != "" {
		var err error
		if e.MAC, err = network.ParseMAC(mac); err != nil {
			return e, invalid(types.ErrInvalidNetworkConfig, "mac: %v", err)
		}
	}
	return e, nil
}

// binder is who binds published ports of the host.
type binder int

const (
	bindDaemon      binder = iota // usernet's daemon
	bindRuntime                   // the runtime, which leads them to the container itself, as Podman does; or nobody
	bindRootlessKit               // RootlessKit, which leads them into its own network namespace
)

// binder says who binds. RootlessKit's variable is in the environment of everything that it has started.
func (c *config) binder(getenv func(string) string) binder {
	switch {
	case c.Publish == "always":
		return bindDaemon
	case c.Publish == "never", getenv("_CONTAINERS_ROOTLESS_UID") != "":
		return bindRuntime
	case getenv("ROOTLESSKIT_STATE_DIR") != "":
		return bindRootlessKit
	}
	return bindDaemon
}

// ports are the published ones.
func (c *config) ports() ([]network.PortBinding, error) {
	var list []network.PortBinding
	for _, m := range c.RuntimeConfig.PortMappings {
		if m.HostPort < 1 || m.HostPort > 65535 || m.ContainerPort < 1 || m.ContainerPort > 65535 {
			return nil, invalid(
				types.ErrInvalidNetworkConfig,
				"port mapping %d:%d: ports are 1 to 65535",
				m.HostPort,
				m.ContainerPort,
			)
		}
		b := network.PortBinding{
			HostPort: uint16(
				m.HostPort,
			), HostEnd: uint16(m.HostPort), Port: uint16(m.ContainerPort), End: uint16(m.ContainerPort),
			Proto: network.Protocol(strings.ToLower(m.Protocol)),
		}
		switch b.Proto {
		case "":
			b.Proto = network.TCP
		case network.TCP, network.UDP:
		default:
			return nil, invalid(
				types.ErrUnsupportedField,
				"port mapping %d:%d: protocol %q: only tcp and udp can be published",
				m.HostPort,
				m.ContainerPort,
				m.Protocol,
			)
		}
		if m.HostIP != "" {
			ip, err := netip.ParseAddr(m.HostIP)
			if err != nil {
				return nil, invalid(
					types.ErrInvalidNetworkConfig,
					"port mapping %d:%d: hostIP: %v",
					m.HostPort,
					m.ContainerPort,
					err,
				)
			}
			if !ip.IsUnspecified() {
				b.HostIP = ip
			}
		}
		list = append(list, b)
	}
	return list, nil
}

// containerName is a name that people know, else a short id as Docker has it. bundle is the OCI bundle that the
// runtime's hook runs in, where nerdctl says it: the host name that it gives in CNI_ARGS is a short id unless a person
// chose it.
func containerName(id string, env envArgs, bundle fs.FS) string {
	names := []string{string(env.K8S_POD_NAME)}
	if env.NERDCTL_CNI_DHCP_HOSTNAME != "" {
		names = append(names, nerdctlName(id, bundle), string(env.NERDCTL_CNI_DHCP_HOSTNAME))
	}
	for _, s := range names {
		if s != "" {
			return s
		}
	}
	return shortID(id)
}

// shortID is the beginning of an id, as Docker has it.
func shortID(id string) string { return id[:min(12, len(id))] }

// nerdctlName is the name of nerdctl's container with an id of CNI's, "NAMESPACE-ID"; "": the bundle is not its.
func nerdctlName(id string, bundle fs.FS) string {
	text, err := fs.ReadFile(bundle, "config.json")
	if err != nil {
		return ""
	}
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		return ""
	}
	if a := spec.Annotations; strings.HasPrefix(id, a["nerdctl/namespace"]+"-") {
		return a["nerdctl/name"]
	}
	return ""
}
