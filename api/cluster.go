package api

import "time"

// Cluster is the cluster that a host is in, as the host sees it.
type Cluster struct {
	Host      string // id of this host
	PublicKey string // of this host, in base64
	Store     string // URL of what the records are spread by, without passwords
	Connected bool   // the store is reached, and the host's replica is equal to it
	Since     time.Time
	Error     string            `json:",omitempty"` // why the store is not reached
	Records   int               // in the replica
	Unsent    int               // changes of this host that the store does not have yet
	Skew      time.Duration     // how much this host's clock is ahead of others'; 0: none, or unknown
	Notes     []string          `json:",omitempty"` // what people have to know: conflicts, records that make no sense
	Drops     map[string]uint64 `json:",omitempty"` // datagrams that belong to no network or host, by reason
	Hosts     []ClusterHost
	Routes    []ClusterRoute `json:",omitempty"` // subnets that are reached through hosts
}

// ClusterRoute is a subnet that a host exposes to the others.
type ClusterRoute struct {
	Subnet string
	Host   string // id
	Unused string `json:",omitempty"` // why the host that is asked does not send there; "": it does, or exposes it itself
}

// PolicyRequest has rules of which containers of a network reach each other, with ; between; "": all do.
type PolicyRequest struct {
	Policy string
}

// ExposeRequest names a subnet.
type ExposeRequest struct {
	Subnet string
}

// ClusterHost is a host of a cluster.
type ClusterHost struct {
	ID          string
	Name        string
	Addrs       []string      // where its datagrams go, the best first
	Self        bool          // it is the host that is asked
	State       string        // up, down or unknown (the store was not reached since the daemon started)
	Since       time.Time     `json:",omitzero"` // of being down; zero: it is not
	Path        string        // how frames go there: direct, punched, relayed, tcp; none where nothing goes there
	Via         string        // the address that they go to now
	PathMTU     int           // of IP packets, in bytes; of a relayed host, to the relay; 0: unknown
	RTT         time.Duration // 0: unknown
	Answers     bool          // probes on that path are answered
	BytesIn     uint64
	BytesOut    uint64
	FramesIn    uint64
	FramesOut   uint64
	RateIn      float64 // bytes a second, of late
	RateOut     float64
	Endpoints   int // containers' interfaces on networks that span hosts
	Version     string
	PublicKey   string
	KeyRefused  bool `json:",omitempty"` // its key is another one than the one that was seen first
	Incarnation uint64
}

// LeaveRequest asks for a host's records to be taken out of the cluster.
type LeaveRequest struct {
	Host  string // id or name; "": the host that is asked
	Force bool
}
