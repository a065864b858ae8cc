package network

import (
	"net/netip"
	"time"

	"github.com/usernet/usernet/internal/ports"
)

// Names of the networks that always exist, and of the drivers behind them.
const (
	BridgeName = "bridge"
	HostName   = "host"
	NoneName   = "none"

	DriverBridge  = "bridge"
	DriverHost    = "host"
	DriverNull    = "null"    // what Docker calls the driver of the network "none"
	DriverOverlay = "overlay" // networks that span hosts
	DriverVXLAN   = "vxlan"   // networks that lead to VXLAN devices of others
	DriverFlannel = "flannel" // the network of flannel's nodes
	DriverMacvlan = "macvlan" // physical networks
)

// Network is a named layer-2 segment with at most one gateway per address family.
type Network struct {
	ID         string            `json:"id"` // 64 lower-case hexadecimal digits
	Name       string            `json:"name"`
	Created    time.Time         `json:"created"`
	Driver     string            `json:"driver"`
	Scope      Scope             `json:"scope"` // "local", or "global" for all hosts of a cluster
	EnableIPv4 bool              `json:"enable_ipv4"`
	EnableIPv6 bool              `json:"enable_ipv6"`
	Internal   bool              `json:"internal,omitempty"` // no way out and no default route
	Attachable bool              `json:"attachable,omitempty"`
	ConfigOnly bool              `json:"config_only,omitempty"`
	ConfigFrom string            `json:"config_from,omitempty"` // name of the config-only network it was made from
	Pools      []Pool            `json:"pools,omitempty"`
	Options    map[string]string `json:"options,omitempty"` // com.docker.network.* and usernet.*
	// IPAMOptions is empty, or null where nobody gave any: Docker tells the two apart.
	IPAMOptions map[string]string `json:"ipam_options"`
	Labels      map[string]string `json:"labels,omitempty"`
	// VNI is the network's number between hosts (VXLAN, 24 bits); 0: it does not span hosts, or has none yet.
	VNI uint32 `json:"vni,omitempty"`
}

// Pool is one subnet of a network and the rules for handing out its addresses.
type Pool struct {
	Subnet  netip.Prefix          `json:"subnet"`
	Range   netip.Prefix          `json:"range,omitzero"` // addresses are chosen from it; zero means Subnet
	Gateway netip.Addr            `json:"gateway"`
	Aux     map[string]netip.Addr `json:"aux,omitempty"` // reserved, by name
	// Configured says that the user named the subnet; only then may --ip be used.
	Configured bool `json:"configured,omitempty"`
}

// Status is a container's place in its life.
type Status string

// The states a container goes through, in Docker's words.
const (
	Created    Status = "created"
	Running    Status = "running"
	Restarting Status = "restarting" // it has ended, keeps its addresses, and is about to run again
	Exited     Status = "exited"
)

// Container is a sandbox that usernet made (run) or joined (attach), and everything asked for it.
type Container struct {
	ID       string            `json:"id"` // 64 lower-case hexadecimal digits
	Name     string            `json:"name"`
	Created  time.Time         `json:"created"`
	Started  time.Time         `json:"started,omitzero"`
	Finished time.Time         `json:"finished,omitzero"`
	Status   Status            `json:"status"`
	ExitCode int               `json:"exit_code"`
	Error    string            `json:"error,omitempty"` // why the start failed
	Labels   map[string]string `json:"labels,omitempty"`

	// What runs in it.
	Command    []string `json:"command,omitempty"`
	Env        []string `json:"env,omitempty"`
	WorkingDir string   `json:"working_dir,omitempty"`
	Rootfs     string   `json:"rootfs,omitempty"`
	User       string   `json:"user,omitempty"`
	TTY        bool     `json:"tty,omitempty"`

	// What its commands are limited to, as in Docker's HostConfig. It is for who starts them; the daemon does nothing
	// with it.
	Privileged  bool     `json:"privileged,omitempty"`
	CapAdd      []string `json:"cap_add,omitempty"`
	CapDrop     []string `json:"cap_drop,omitempty"`
	SecurityOpt []string `json:"security_opt,omitempty"` // a seccomp profile is here in full

	// What of files it has besides its root; who starts it mounts them.
	Mounts   []Mount `json:"mounts,omitempty"`
	ReadOnly bool    `json:"read_only,omitempty"` // the root
	Init     bool    `json:"init,omitempty"`      // asked for; there always is one

	OpenStdin  bool `json:"open_stdin,omitempty"`
	AutoRemove bool `json:"auto_remove,omitempty"`

	// Restart says whether it runs again after its end; RestartCount is how often it did, by this policy.
	Restart      RestartPolicy `json:"restart,omitzero"`
	RestartCount int           `json:"restart_count,omitempty"`
	// Stopped says that a user has stopped it since it was started last; the policy then leaves it alone.
	Stopped     bool        `json:"stopped,omitempty"`
	Health      HealthCheck `json:"health,omitzero"`
	StopSignal  string      `json:"stop_signal,omitempty"`  // asks it to end; "" is TERM
	StopTimeout *int        `json:"stop_timeout,omitempty"` // seconds from it to KILL; nil: 10, negative: without end

	// Resources limit it by Cgroup, the directory of the limits while it runs; its processes are in a directory below.
	// OOMKilled says that its latest run had no memory left, and the kernel has killed a process.
	Resources Resources `json:"resources,omitzero"`
	Cgroup    string    `json:"cgroup,omitempty"`
	OOMKilled bool      `json:"oom_killed,omitempty"`

	// Attached marks a sandbox that something else started; usernet never signals or ends it.
	Attached bool   `json:"attached,omitempty"`
	NetNS    string `json:"netns,omitempty"`  // path; empty means that of Pid
	UserNS   string `json:"userns,omitempty"` // path; empty means the owner of the network namespace

	// NetNSID tells the network namespace of what was attached by a descriptor from all others, while it exists.
	NetNSID NamespaceID `json:"netns_id,omitzero"`
	// Moves says that who attached it moves its one interface on to another network namespace, configures it there, and
	// may give it another name. NetNSID and the endpoint's Interface are those that it was last seen with.
	Moves bool `json:"moves,omitempty"`

	// VM is the socket of a virtual machine, which has it in the place of a network namespace.
	VM VMSocket `json:"vm,omitzero"`

	// The processes, with their start times in clock ticks since boot (proc_pid_stat(5) field 22),
	// so that a pid that was used again is never taken for them.
	Pid      int    `json:"pid,omitempty"`
	PidStart uint64 `json:"pid_start,omitempty"`
	// The process that waits for Pid: `usernet run` itself, or its detached child.
	Monitor      int    `json:"monitor,omitempty"`
	MonitorStart uint64 `json:"monitor_start,omitempty"`
	// Holder is a process outside the sandbox with whose end an attachment ends; 0: there is none.
	Holder      int    `json:"holder,omitempty"`
	HolderStart uint64 `json:"holder_start,omitempty"`

	// How it is connected.
	NetworkMode string   `json:"network_mode"` // "bridge", "host", "none", "container:ID" or a network's name
	Hostname    string   `json:"hostname,omitempty"`
	Domainname  string   `json:"domainname,omitempty"`
	DNS         []string `json:"dns,omitempty"` // upstream servers of this container
	DNSSearch   []string `json:"dns_search,omitempty"`
	DNSOptions  []string `json:"dns_options,omitempty"`
	ExtraHosts  []string `json:"extra_hosts,omitempty"` // NAME:IP or NAME:host-gateway
	// DNSAddr is where the sandbox finds the name server, IPv4; zero: at 127.0.0.11, as in Docker.
	DNSAddr netip.Addr `json:"dns_addr,omitzero"`
	// LocalAddrs are IPv4 addresses of the sandbox's loopback interface besides, at which its services are found from
	// inside.
	LocalAddrs []netip.Addr  `json:"local_addrs,omitempty"`
	Links      []string      `json:"links,omitempty"` // NAME:ALIAS on the default bridge
	Ports      []PortBinding `json:"ports,omitempty"` // as asked for
	Exposed    []PortProto   `json:"exposed,omitempty"`
	PublishAll bool          `json:"publish_all,omitempty"`
	// As they were bound last, so that chosen host ports are chosen again.
	Bound []PortBinding `json:"bound,omitempty"`
	// HostLoopback lets the container reach services on the host's loopback.
	HostLoopback bool `json:"host_loopback,omitempty"`
	// UserNSID tells the user namespace of a container that usernet runs from all others while Pid lives, or the one
	// that an attached network namespace belongs to; zero: it is the daemon's own, or the daemon cannot see it.
	UserNSID NamespaceID `json:"userns_id,omitzero"`
	// ShareAPI lets what runs in the container use the daemon's API, as the user outside can.
	ShareAPI bool `json:"share_api,omitempty"`
	// Egress is what happens to destinations outside that AllowEgress does not name: "allow", "deny", or "" for what
	// the network says. With "deny" only names that a rule is for are asked for outside.
	Egress string `json:"egress,omitempty"`
	// AllowEgress has rules CIDR|ADDRESS|NAME[:PORT[/PROTO]], or dns for all names and no destination; those of the
	// network (option usernet.allow_egress) apply too.
	AllowEgress []string `json:"allow_egress,omitempty"`

	Endpoints []*Endpoint `json:"endpoints,omitempty"` // in order of connection
}

// Endpoint is a container's interface on one network.
type Endpoint struct {
	ID        string `json:"id"` // 64 lower-case hexadecimal digits
	NetworkID string `json:"network_id"`
	// Network is the network's name when the endpoint was made; networks are not renamed.
	Network    string            `json:"network"`
	Interface  string            `json:"interface,omitempty"` // eth0, eth1 ... inside the sandbox
	MAC        MAC               `json:"mac"`
	IPv4       netip.Prefix      `json:"ipv4,omitzero"` // address with the length of the pool's subnet
	IPv6       netip.Prefix      `json:"ipv6,omitzero"`
	Gateway4   netip.Addr        `json:"gateway4,omitzero"`
	Gateway6   netip.Addr        `json:"gateway6,omitzero"`
	LinkLocal  []netip.Addr      `json:"link_local,omitempty"`
	Aliases    []string          `json:"aliases,omitempty"`
	Links      []string          `json:"links,omitempty"` // NAME:ALIAS, seen by this endpoint's container only
	DriverOpts map[string]string `json:"driver_opts,omitempty"`
	GwPriority int               `json:"gw_priority,omitempty"`
	// Routes lead to destinations by the interface, besides the network's subnets.
	Routes []Route `json:"routes,omitempty"`
	// VLAN keeps the endpoint apart from those of its network that are in another one or in none; on a physical network
	// it is that of the frames there. 0: none.
	VLAN uint16 `json:"vlan,omitempty"`
	// DHCP: a DHCP server gave the IPv4 address.
	DHCP bool `json:"dhcp,omitempty"`
	// Autoconf: the IPv6 address follows from what routers announce, or is a DHCPv6 server's where they say so.
	Autoconf bool `json:"autoconf,omitempty"`
	// Key is the caller's, by which an attachment is found again.
	Key string `json:"key,omitempty"`
	// Bandwidth bounds what the container sends and receives on the network.
	Bandwidth Bandwidth `json:"bandwidth,omitzero"`
	// Unconfigured leaves the interface without addresses and routes, for the caller to set: those above are reserved
	// for it.
	Unconfigured bool `json:"unconfigured,omitempty"`
	// SelfAddressed has IPv6 be the address that follows from the MAC (RFC 4291 appendix A), where the prefix is long
	// enough: what is there makes it by itself, from a router advertisement.
	SelfAddressed bool `json:"self_addressed,omitempty"`
	// LastIPv4 and LastIPv6 are the addresses that an ended container had; it gets them again where they are free.
	LastIPv4 netip.Addr `json:"last_ipv4,omitzero"`
	LastIPv6 netip.Addr `json:"last_ipv6,omitzero"`
	// What the user asked for, apart from what was chosen.
	WantIPv4 netip.Addr `json:"want_ipv4,omitzero"`
	WantIPv6 netip.Addr `json:"want_ipv6,omitzero"`
	WantMAC  MAC        `json:"want_mac,omitzero"`
}

// Route leads to a destination by an endpoint's interface.
type Route struct {
	Dst netip.Prefix `json:"dst"`
	Via netip.Addr   `json:"via,omitzero"` // invalid: the destination is on the link
}

// Mount is a file or directory of the caller's, or an empty file system in memory, at a place in a container.
type Mount struct {
	Source   string `json:"source,omitempty"` // "": a tmpfs
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
	Tmpfs    bool   `json:"tmpfs,omitempty"`
	Options  string `json:"options,omitempty"` // of a tmpfs, as they were given
}

// VMSocket is a Unix socket by which a virtual machine's frames come.
type VMSocket struct {
	Kind string `json:"kind"` // "stream", "datagram" or "seqpacket"; "": there is no virtual machine
	// Path is where the virtual machine finds the socket, or has its own where Connect is set. Who attaches it makes a
	// link from Path to Socket.
	Path    string `json:"path"`
	Connect bool   `json:"connect,omitempty"`
	Socket  string `json:"socket,omitempty"` // the daemon's; "" with Connect
}

// IsVM says whether c is a virtual machine.
func (c *Container) IsVM() bool { return c.VM.Kind != "" }

// Bandwidth has a rate and a burst for each direction, in bits and bits a second, as CNI's convention of that name has
// them. A rate of 0 is none.
type Bandwidth struct {
	IngressRate  uint64 `json:"ingress_rate,omitempty"` // to the container
	IngressBurst uint64 `json:"ingress_burst,omitempty"`
	EgressRate   uint64 `json:"egress_rate,omitempty"` // from it
	EgressBurst  uint64 `json:"egress_burst,omitempty"`
}

// NamespaceID tells a namespace from all others, as long as it exists: device and inode of its file (namespaces(7)).
type NamespaceID struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// MAC is a 48-bit Ethernet address.
type MAC [6]byte

// Published ports as package ports has them, for all of the program.
type (
	Protocol    = ports.Protocol
	PortProto   = ports.Port
	PortBinding = ports.Binding
)

// The transports.
const (
	TCP  = ports.TCP
	UDP  = ports.UDP
	SCTP = ports.SCTP
)
