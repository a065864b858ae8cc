package overlay

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Key is a WireGuard public key: a Curve25519 point. In JSON it is base64, as wg(8) writes it.
type Key [32]byte

// MarshalText implements encoding.TextMarshaler. The zero key is empty.
func (k Key) MarshalText() ([]byte, error) {
	if k == (Key{}) {
		return nil, nil
	}
	return []byte(k.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Key) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*k = Key{}
		return nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != len(k) {
		return fmt.Errorf("public key %.60q is not 32 bytes in base64", text)
	}
	copy(k[:], b)
	return nil
}

// String writes it as wg(8) does.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// MAC is an Ethernet address; in JSON it is text.
type MAC [6]byte

// MarshalText implements encoding.TextMarshaler.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MAC) UnmarshalText(text []byte) error {
	hw, err := net.ParseMAC(string(text))
	if err != nil || len(hw) != len(m) {
		return fmt.Errorf("MAC address %.40q", text)
	}
	copy(m[:], hw)
	return nil
}

// String writes it with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Host is one daemon: where it is reached, and who it is.
type Host struct {
	ID          HostID `json:"id"`
	Name        string `json:"name"`        // the machine's host name, for people; not unique
	Incarnation uint64 `json:"incarnation"` // of the daemon's life that wrote this; a later life has a higher one
	// Addrs are where the fabric's UDP datagrams go, the best first.
	Addrs []netip.AddrPort `json:"addrs"`
	// TCP is where connections are taken that carry what UDP does not, the best first; none: they are not.
	TCP []netip.AddrPort `json:"tcp,omitempty"`
	// Key is the host's WireGuard key; the others pin it at first sight.
	Key Key `json:"key"`
	// Codecs are how frames may be sent to it ("vxlan"), the best first; none means vxlan.
	Codecs []string `json:"codecs,omitempty"`
	// Seen are the addresses at which this host receives others' datagrams from, by the other's id: how a host behind
	// NAT comes to know its own.
	Seen map[HostID]netip.AddrPort `json:"seen,omitempty"`
	// MTU is the largest IP packet that the host's interface takes, in bytes; 0: unknown.
	MTU int `json:"mtu,omitempty"`
	// Version is usernet's, for people.
	Version string `json:"version,omitempty"`
}

// Subnet is one subnet of a network.
type Subnet struct {
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway,omitzero"` // the same on all hosts
	// Range is the part that addresses are chosen from; zero: all of Subnet.
	Range netip.Prefix `json:"range,omitzero"`
	// Aux are addresses that no container may have, by name.
	Aux map[string]netip.Addr `json:"aux,omitempty"`
	// Configured says that a user named the subnet; only then may --ip be used.
	Configured bool `json:"configured,omitempty"`
}

// Network is a network that spans hosts.
type Network struct {
	ID         string            `json:"id"` // 64 lower-case hexadecimal digits
	Name       string            `json:"name"`
	Created    time.Time         `json:"created"`
	Subnets    []Subnet          `json:"subnets"`
	VNI        uint32            `json:"vni"`              // VXLAN network identifier, 24 bits (RFC 7348, 5)
	Sealed     bool              `json:"sealed,omitempty"` // frames go through WireGuard, always
	IPv4       bool              `json:"ipv4,omitempty"`
	IPv6       bool              `json:"ipv6,omitempty"`
	Internal   bool              `json:"internal,omitempty"`
	Attachable bool              `json:"attachable,omitempty"`
	Options    map[string]string `json:"options,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Creator    HostID            `json:"creator"`
}

// Endpoint is a container's interface on a network. Each of its addresses has a record, and all of them are equal.
type Endpoint struct {
	Network     string       `json:"network"` // id
	Addrs       []netip.Addr `json:"addrs"`   // one of each family at most
	MAC         MAC          `json:"mac"`
	Host        HostID       `json:"host"`
	Incarnation uint64       `json:"incarnation"` // of Host's life that wrote this
	EndpointID  string       `json:"endpoint"`    // 64 lower-case hexadecimal digits
	Container   string       `json:"container"`   // id
	Name        string       `json:"name"`        // of the container
	// Names are the other names that it has on the network: aliases and the host name, without Name and the short id.
	Names []string `json:"names,omitempty"`
	// Tags are what holds for the container of what the network's policy asks for, such as app=web.
	Tags []string `json:"tags,omitempty"`
	// Running says that the container runs: its names are answered only then.
	Running bool `json:"running,omitempty"`
}

// Block is a part of a network's subnet whose addresses one host gives out.
type Block struct {
	Network string       `json:"network"` // id
	Prefix  netip.Prefix `json:"prefix"`
	Host    HostID       `json:"host"`
}

// Route is a subnet outside of the cluster's networks that is reached through a host, which has exposed it.
type Route struct {
	Host   HostID       `json:"host"`
	Prefix netip.Prefix `json:"prefix"`
}

// Name says which network a name, a subnet or a number on the wire belongs to.
type Name struct {
	Network string `json:"network"` // id
}

// compile-time check that records are records.
var _ = []record{Host{}, Network{}, Endpoint{}, Block{}, Name{}, Route{}}

// record is what all of them can do.
type record interface {
	check() error
}

// Encode writes a record. It fails where a field is out of its bounds, or the whole is larger than MaxRecord.
func Encode[R record](r R) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxRecord {
		return nil, fmt.Errorf(
			"a record has %d bytes, and %d at most are sent to other hosts: use fewer or shorter names, labels and options",
			len(b),
			MaxRecord,
		)
	}
	return b, nil
}
