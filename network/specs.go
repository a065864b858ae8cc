package network

import (
	"net/netip"
)

// NetworkSpec is what a user asks for when creating a network.
type NetworkSpec struct {
	Name       string
	Driver     string // "" means bridge
	Scope      Scope  // "local" or "global"; "" means that of the driver
	EnableIPv4 *bool  // nil means true
	EnableIPv6 *bool  // nil means what the daemon gives new networks: false, or with serve --ipv6 true
	Internal   bool
	Attachable bool
	ConfigOnly bool
	ConfigFrom string
	// Pools are the subnets. One without a Subnet is drawn; one of a family that the network does not have is left out.
	Pools       []Pool
	IPAMOptions map[string]string // has to be empty
	Options     map[string]string
	Labels      map[string]string
	// Avoid are further subnets that are in use: those of networks that this host does not know.
	Avoid []netip.Prefix `json:"-"`
}

// EndpointSpec is what a user asks for when connecting a container to a network.
type EndpointSpec struct {
	IPv4       netip.Addr
	IPv6       netip.Addr
	MAC        MAC // zero: derived from the address
	LinkLocal  []netip.Addr
	Aliases    []string
	Links      []string // NAME[:ALIAS]
	DriverOpts map[string]string
	GwPriority int
	// Interface is the interface's name in the sandbox; "" chooses one.
	Interface    string
	Routes       []Route // besides that to the network's subnets
	VLAN         uint16  // as in Endpoint
	DHCP         bool    // a DHCP server on the network gives the IPv4 address
	Unconfigured bool    // no addresses and routes on the interface: the caller sets those that are reserved
	Key          string  // the caller's, to find the endpoint again
	Bandwidth    Bandwidth

	SelfAddressed bool // as in Endpoint

	hostname string       // of the container, for a DHCP server; "": none is told
	reserved *reservation // what the network's Allocator has reserved; nil: the model chooses the addresses
}

// ContainerSpec is what a user asks for when creating (run) or joining (attach) a container.
// The fields mean what they mean in Container.
type ContainerSpec struct {
	Name         string // "" draws one, as Docker does (adjective_surname)
	Labels       map[string]string
	Command      []string
	Env          []string
	WorkingDir   string
	Rootfs       string
	User         string
	Privileged   bool
	CapAdd       []string
	CapDrop      []string
	SecurityOpt  []string
	TTY          bool
	OpenStdin    bool
	AutoRemove   bool
	Mounts       []Mount
	ReadOnly     bool
	Init         bool
	Restart      RestartPolicy
	Health       HealthCheck
	StopSignal   string
	StopTimeout  *int
	Resources    Resources
	Attached     bool
	NetNS        string
	NetNSID      NamespaceID
	UserNSID     NamespaceID // that an attached NetNS belongs to; the daemon sets it and NetNSID
	Moves        bool
	UserNS       string
	VM           VMSocket
	NetworkMode  string // "" or "default" means bridge
	Hostname     string // "" means the first 12 digits of the id
	Domainname   string
	DNS          []string
	DNSSearch    []string
	DNSOptions   []string
	ExtraHosts   []string
	DNSAddr      netip.Addr
	LocalAddrs   []netip.Addr
	Links        []string
	Ports        []PortBinding
	Exposed      []PortProto
	PublishAll   bool
	HostLoopback bool
	ShareAPI     bool
	Egress       string
	AllowEgress  []string
	// Networks are the endpoints to make, in order; the first is the one of NetworkMode.
	Networks []NamedEndpointSpec
}

// NamedEndpointSpec asks for an endpoint on one network.
type NamedEndpointSpec struct {
	Network string // name, id or unique prefix
	EndpointSpec
}
