package api

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"time"

	"github.com/usernet/usernet/internal/cgroup"
	"github.com/usernet/usernet/internal/openmetrics"
	"github.com/usernet/usernet/internal/ports"
	"github.com/usernet/usernet/network"
)

// Backend is what the server needs of the daemon. Errors that it returns carry a
// class of internal/errdefs where it decides the HTTP status.
type Backend interface {
	Networks() []*network.Network
	// Network finds one by full id, name or unique id prefix, in this order.
	Network(ref string) (*network.Network, error)
	CreateNetwork(ctx context.Context, spec network.NetworkSpec) (n *network.Network, warning string, err error)
	RemoveNetwork(ctx context.Context, ref string) error
	// PruneNetworks removes the user-defined networks that nothing uses and that match lets pass, and returns their
	// names.
	PruneNetworks(ctx context.Context, match func(*network.Network) bool) ([]string, error)
	// NetworkDetails is the verbose part of an inspect (switch ports, drops by reason, flows), ready to be encoded.
	NetworkDetails(ref string) (any, error)
	Connect(ctx context.Context, networkRef, containerRef string, spec network.EndpointSpec) error
	Disconnect(ctx context.Context, networkRef, containerRef string, force bool) error

	Containers() []*network.Container
	Container(ref string) (*network.Container, error)
	// With warnings.
	CreateContainer(ctx context.Context, spec network.ContainerSpec) (*network.Container, []string, error)
	// StartContainer wires the sandbox of a created container: interfaces, names, ports.
	StartContainer(ctx context.Context, ref string, p Started) (StartReply, error)
	// ContainerExited records the exit status, and removes the container where AutoRemove is set.
	ContainerExited(ctx context.Context, ref string, code int) error
	// ProcessExited is ContainerExited where pid is the container's first process; 0 stands for any.
	ProcessExited(ctx context.Context, ref string, pid, code int) error
	// StartAgain runs a container that has ended once more. It says whether it was to be started: false is one that
	// runs.
	StartAgain(ctx context.Context, ref string) (bool, error)
	// RestartContainer ends a container as StopContainer does, where it runs, and runs it again.
	RestartContainer(ctx context.Context, ref string, signal string, timeout *time.Duration) error
	// Attach gives a network namespace that the client has opened an interface on each network that q names; traffic
	// flows when it returns. It owns netns, which is nil where none came. The same key for the same namespace gives the
	// same answer.
	Attach(ctx context.Context, q AttachRequest, netns *os.File) (*network.Container, error)
	// Detach takes the interfaces that were attached with a key away, and forgets the container with the last of them.
	Detach(ctx context.Context, key string) error
	// ContainerFiles are the texts that a container's resolv.conf and hosts have to have now.
	ContainerFiles(ref string) (StartReply, error)
	// StopContainer asks the container to end, and kills it after the timeout; never where that is negative. Signal ""
	// and timeout nil are the container's own.
	StopContainer(ctx context.Context, ref string, signal string, timeout *time.Duration) error
	KillContainer(ctx context.Context, ref string, signal string) error
	RemoveContainer(ctx context.Context, ref string, force bool) error
	RenameContainer(ctx context.Context, ref, name string) error
	// WaitContainer returns the exit status once the condition is met. It fails where the daemon ends first.
	WaitContainer(ctx context.Context, ref string, condition WaitCondition) (int, error)
	// UpdateContainer changes limits, restart policy, labels and egress rules, at once where it runs.
	UpdateContainer(ctx context.Context, ref string, q UpdateRequest) error
	// Usage is what a container uses by its cgroup; nil where it has none.
	Usage(ref string) (*cgroup.Usage, error)
	// ReportHealth takes what a container's health check says, where pid is still its first process.
	ReportHealth(ctx context.Context, ref string, pid int, h network.Health) error
	// Health is how a container is; nil where it has no check, or does not run.
	Health(c *network.Container) *network.Health
	// CreateExec notes one more command for a running container, and returns its id.
	CreateExec(ctx context.Context, ref string, q Exec) (string, error)
	Exec(id string) (Exec, error)
	// StartExec starts it and returns once it runs. Its streams are files in the order stdin, stdout, stderr: those
	// that it was made with; none where it is detached. They stay the caller's.
	StartExec(ctx context.Context, id string, detached bool, files []*os.File) error
	// WaitExec returns once it has ended, or the daemon ends.
	WaitExec(id string)
	// ResizeExec gives its terminal a size, once it runs.
	ResizeExec(ctx context.Context, id string, rows, cols uint16) error
	// Processes lists the processes of a running container, the first one first.
	Processes(ref string) ([]Process, error)
	// Traffic counts what passed a container's interfaces, by their names.
	Traffic(ref string) (map[string]Traffic, error)
	// LogPath is the file that holds the container's output (docker's json-file lines), or "".
	LogPath(ref string) (string, error)

	// PublishPorts and UnpublishPorts change a running container, all or nothing.
	PublishPorts(ctx context.Context, ref string, ports []network.PortBinding) ([]Published, error)
	UnpublishPorts(ctx context.Context, ref string, ports []network.PortBinding) error
	// Published lists the live published ports of a container, one row per host address and port.
	Published(ref string) ([]Published, error)

	Flows(ref string) ([]Flow, error) // of all containers where ref is ""
	// CloseFlows closes the flows of a protocol between two ends, with an invalid outside all of the inside one, and
	// says how many there were.
	CloseFlows(proto string, inside, outside netip.AddrPort) int
	Sample() Sample
	// Capture begins to record frames; the stream has to be run.
	Capture(q CaptureRequest) (*CaptureStream, error)
	Captures() []Capture
	// EndCapture has a capture's Run write what waits, and return.
	EndCapture(id string) error
	// Trace says what becomes of a container's packets to a destination, and tries it.
	Trace(ctx context.Context, q TraceRequest) (Trace, error)
	// QueryDNS answers as the embedded server would answer that container.
	QueryDNS(ctx context.Context, container, name, qtype string) (DNSAnswer, error)

	// ContainersElsewhere are the containers that other hosts have on a network, with their endpoint on it.
	ContainersElsewhere(networkID string) []*network.Container
	// SetNetworkPolicy changes which containers of a network reach each other; "": all do.
	SetNetworkPolicy(ctx context.Context, ref, rules string) error
	// UpdateNetwork changes options of a network, at once for its containers.
	UpdateNetwork(ctx context.Context, ref string, q NetworkUpdate) error
	// Cluster describes the cluster that the host is in.
	Cluster() (Cluster, error)
	// LeaveCluster takes the records of a host (id or name; "": this one) out of the cluster. With force also where it
	// is heard of, or containers of this one are on networks that span hosts.
	LeaveCluster(ctx context.Context, host string, force bool) error
	// ExposeSubnet has containers of other hosts reach a subnet through this host, and UnexposeSubnet ends that.
	ExposeSubnet(ctx context.Context, subnet string) error
	UnexposeSubnet(subnet string) error

	// Events calls send for each event from since on. It returns nil where until is reached or ctx ends, and an error
	// where send fails or the daemon ends.
	Events(ctx context.Context, since time.Time, until time.Time, send func(Event) error) error
	Info() Info
	// Metrics are the daemon's, as they are now.
	Metrics() []openmetrics.Family
	// Shutdown asks the daemon to end, as SIGTERM does.
	Shutdown()
}

// NetworkUpdate changes a network; nil: it stays as it is. Of a network that spans hosts it changes that on all.
type NetworkUpdate struct {
	Egress      *string   `json:",omitempty"` // "": destinations are allowed
	AllowEgress *[]string `json:",omitempty"` // in the place of the rules that there are
}

// UpdateRequest changes a container.
type UpdateRequest struct {
	Resources network.Resources      // that are not 0; pids_limit -1: no limit
	Restart   *network.RestartPolicy `json:",omitempty"` // nil: as it is
	// Labels are added, or replace those with their keys; the keys in RemoveLabels go before.
	Labels       map[string]string `json:",omitempty"`
	RemoveLabels []string          `json:",omitempty"`
	// Egress and AllowEgress take the place of the container's own; nil: they stay.
	Egress      *string   `json:",omitempty"`
	AllowEgress *[]string `json:",omitempty"`
}

// Started tells the daemon which processes a container consists of.
type Started struct {
	Pid     int `json:"pid"`     // PID 1 of the sandbox, as the daemon's pid namespace sees it
	Monitor int `json:"monitor"` // the process that waits for it
	// Holder is a process outside the sandbox with whose end an attachment ends; 0: there is none.
	Holder int `json:"holder,omitempty"`
}

// Exec is one more command in a container, and what has become of it.
type Exec struct {
	ID, Container         string
	Command, Env          []string
	WorkingDir, User      string // "" is the container's
	TTY                   bool
	Stdin, Stdout, Stderr bool // which streams it has; the others are /dev/null
	Running               bool
	Pid                   int
	ExitCode              *int // nil: it has not ended
}

// Process is a process of a container.
type Process struct {
	Pid, Parent  int
	UID          string
	Terminal     string        // such as pts/0; "?" is none
	User, System time.Duration // processor time
	Waited       time.Duration // processor time of children that have ended
	Started      time.Duration // since the machine's start
	Threads      int
	Memory       uint64 // bytes that are no other process's
	Command      string // with its arguments, or its name in brackets
}

// Traffic counts what passed an interface.
type Traffic struct {
	ReceivedBytes, ReceivedPackets, SentBytes, SentPackets, SentDropped uint64
}

// AttachRequest asks for interfaces in a network namespace, whose descriptor comes with the request, or with Spec.VM
// for a virtual machine, which has none.
type AttachRequest struct {
	Key string // of the caller's choice: with the same one the request may be repeated; "": it may not
	// Pid is a process with whose end the attachment ends; 0: it ends with Detach, or once Spec.NetNS is given and, as
	// the daemon sees it, no longer leads to the namespace.
	Pid int
	// Holder is a process outside the namespace with whose end the attachment ends as well; 0: there is none. Where a
	// daemon has lost the namespace's descriptor, as after a crash, the holder sends the request once more, with the
	// same key.
	Holder int
	// ParentHolds says that the holder is the parent of the process that sends the request, whose number that process
	// cannot know where it is in another pid namespace.
	ParentHolds bool
	// Moves says that the caller moves the interface, of which there is one, on to another network namespace, and
	// configures it there, as an engine does for its network plugins. Then each key is a container of its own, whatever
	// else is attached in the namespace that has come with the request. The same key again, for which no namespace has
	// to come, gives it other aliases. It ends with Detach, or with the interface.
	Moves bool
	// Spec is what the container is to be that stands for the namespace. Where there is one already, from an earlier
	// request about the same namespace, its name becomes an alias, and its networks and ports are added.
	Spec network.ContainerSpec
}

// StartReply is what the sandbox's init needs to go on.
type StartReply struct {
	ResolvConf string `json:"resolv_conf"` // texts of the sandbox's files; "" leaves its own as they are
	Hosts      string `json:"hosts"`
	Hostname   string `json:"hostname"`
}

// AttachReply is the container that stands for a namespace, and what its resolv.conf and hosts have to say.
type AttachReply struct {
	network.Container
	Files StartReply `json:"files"`
}

// Published is one published port of a container, as it is bound.
type Published = ports.Bound

// Flow is one connection or association through a gateway.
type Flow struct {
	Container  string         `json:"container"` // name
	Network    string         `json:"network"`
	Proto      string         `json:"proto"`     // tcp, udp, icmp
	Direction  string         `json:"direction"` // out, in (published port)
	Inside     netip.AddrPort `json:"inside"`    // the container's end
	Outside    netip.AddrPort `json:"outside"`   // the peer's end, as the container sees it
	HostSide   netip.AddrPort `json:"host_side"` // the host socket's local address
	State      string         `json:"state"`
	Path       string         `json:"path"`      // gateway, bypass: spliced by the kernel, or sockets: to another host
	BytesIn    uint64         `json:"bytes_in"`  // to the container
	BytesOut   uint64         `json:"bytes_out"` // from the container
	PacketsIn  uint64         `json:"packets_in"`
	PacketsOut uint64         `json:"packets_out"`
	// PacketsLost is how many datagrams for the container were lost at the host's socket at least, most often since its
	// queue was full: the kernel counts those that were sent together as one. Those of published ports are counted for
	// the network alone, since the kernel does not say whose they were.
	PacketsLost uint64    `json:"packets_lost"`
	Created     time.Time `json:"created"`
}

// DNSAnswer is an answer with its origin.
type DNSAnswer struct {
	Rcode    string        `json:"rcode"`
	Records  []string      `json:"records"` // in zone-file form
	Source   string        `json:"source"`  // zone, cache, egress policy (which refused it), upstream ADDRESS
	Duration time.Duration `json:"duration"`
}

// Event is one Docker-shaped event.
type Event struct {
	Type       string // "network" or "container"
	Action     string // create, connect, disconnect, destroy, start, die, ...
	ID         string // of the actor
	Attributes map[string]string
	Time       time.Time
}

// Info is the daemon's state in numbers.
type Info struct {
	Version                     string
	Pid                         int // of the daemon, as its own pid namespace sees it
	StateDir                    string
	Socket                      string
	Started                     time.Time
	Containers, Running, Exited int
	Networks                    int
	Confined                    []string // what the daemon has given up (package confine)
	Warnings                    []string // what the machine lacks, e.g. ping sockets
	Counters                    map[string]json.Number
	Budgets                     Budgets
	BGP                         []BGPNeighbor `json:",omitempty"` // routers that the daemon speaks to
	Cgroups                     Cgroups
}

// Cgroups says whether containers can have limits.
type Cgroups struct {
	Root        string   `json:",omitempty"` // directory of the cgroup that was delegated to the daemon
	Controllers []string `json:",omitempty"` // of memory, cpu and pids
	Error       string   `json:",omitempty"` // why there are none
	Fix         string   `json:",omitempty"` // what to do about it
}

// BGPNeighbor is a router that the daemon speaks BGP to.
type BGPNeighbor struct {
	Addr        string // with the port
	ASN         uint32
	Established bool
	Since       time.Time // of being as it is
	Error       string    `json:",omitempty"` // why the last session or attempt ended
	Families    []string  `json:",omitempty"` // that both speak
	Learned     int       // routes that are kept, also of a session that was lost lately
	Announced   int       // routes that it was told
	// Withheld counts the routes that it is not told, by reason: it does not speak their family, or the daemon has no
	// address of the family that they could lead to.
	Withheld  map[string]int `json:",omitempty"`
	Ignored   uint64         // routes of kinds that are not used, or above the limit
	Malformed uint64         // messages whose routes count as withdrawn (RFC 7606)
}

// Budgets are how descriptors and memory are divided among containers. No container gets more than leaves as much free.
type Budgets struct {
	Descriptors        int64 // for containers' traffic; 0: no limit
	DescriptorsReserve int64 // kept for the API, agents, interfaces and published ports
	DescriptorsUsed    int64 // by containers' traffic
	Memory             int64 // in bytes, for buffers of connections through the gateways; 0: no limit
	MemoryPerContainer int64 // in bytes; 0: no limit
	MemoryUsed         int64 // in bytes, that is set aside
	GoMemoryLimit      int64 // in bytes, at which the daemon collects garbage more often (GOMEMLIMIT); 0: none
}
