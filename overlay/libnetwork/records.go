package libnetwork

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
)

// Bounds of what records say.
const (
	maxName    = 255 // bytes of a name (RFC 1035, 2.3.4)
	maxAliases = 64
	maxPoolsOf = 16 // of one network
	maxAux     = 256
)

// networkRecord is a network as the daemons store it: the fields that count here.
type networkRecord struct {
	ID           string            `json:"id"`
	Name         string            `json:"name"`
	Created      time.Time         `json:"created"`
	NetworkType  string            `json:"networkType"` // the driver
	Scope        string            `json:"scope"`
	EnableIPv6   bool              `json:"enableIPv6"`
	Internal     bool              `json:"internal"`
	Attachable   bool              `json:"attachable"`
	InDelete     bool              `json:"inDelete"`
	ConfigOnly   bool              `json:"configOnly"`
	Labels       map[string]string `json:"labels"`
	IPAMType     string            `json:"ipamType"`
	IPAMV4Config string            `json:"ipamV4Config"` // JSON: []ipamConfig
	IPAMV4Info   string            `json:"ipamV4Info"`   // JSON: []ipamInfo
}

// ipamConfig is what was asked for when a network was made.
type ipamConfig struct {
	PreferredPool string
	SubPool       string
	Gateway       string
	AuxAddresses  map[string]string
}

// ipamInfo is what it got.
type ipamInfo struct {
	IPAMData string // JSON: ipamData
	PoolID   string
}

type ipamData struct {
	AddressSpace string
	Gateway      string            // a prefix
	Pool         string            // likewise
	AuxAddresses map[string]string `json:",omitempty"` // prefixes
}

// overlayRecord is what Docker's driver stores of a network.
type overlayRecord struct {
	MTU     int             `json:"mtu"`
	Secure  bool            `json:"secure"`
	Subnets []overlaySubnet `json:"subnets"`
}

type overlaySubnet struct {
	SubnetIP string
	GwIP     string
	Vni      uint32 //nolint:revive // as it is written
}

// subnet is the index of a subnet; -1: there is none.
func (r overlayRecord) subnet(p netip.Prefix) int {
	return slices.IndexFunc(r.Subnets, func(s overlaySubnet) bool { return s.SubnetIP == p.String() })
}

// errRecord says that a record is not as the daemons write it.
var errRecord = errors.New("it is not as Docker's daemons write it")

// overlayType is what Docker calls networks between hosts.
const overlayType = "overlay"

// errNotOurs says that a network is none that can span to this host.
var errNotOurs = errors.New("it is no network between hosts")

// decodeNetwork makes a network of its two records.
func decodeNetwork(text, driver []byte) (*network.Network, error) {
	var r networkRecord
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	switch {
	case r.NetworkType != overlayType || r.Scope != string(network.ScopeGlobal) || r.InDelete || r.ConfigOnly:
		return nil, errNotOurs
	case !isID(r.ID) || r.Name == "" || len(r.Name) > maxName:
		return nil, fmt.Errorf("%w: network %.80q with id %.80q", errRecord, r.Name, r.ID)
	case r.EnableIPv6:
		return nil, fmt.Errorf("network %s has IPv6, which Docker's overlay networks carry in swarms only", r.Name)
	case r.IPAMType != "default" && r.IPAMType != "":
		return nil, fmt.Errorf("network %s has its addresses from %.40q, and not from Docker", r.Name, r.IPAMType)
	}
	pool, err := r.pool()
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", r.Name, err)
	}
	n := &network.Network{
		ID: r.ID, Name: r.Name, Created: r.Created, Driver: network.DriverOverlay, Scope: network.ScopeGlobal,
		EnableIPv4: true, Internal: r.Internal, Attachable: r.Attachable, Labels: r.Labels, Pools: []network.Pool{pool},
	}
	return n, setOverlay(n, driver)
}

// pool is the network's subnet.
func (r *networkRecord) pool() (network.Pool, error) {
	var configs []ipamConfig
	var infos []ipamInfo
	if json.Unmarshal([]byte(r.IPAMV4Config), &configs) != nil || json.Unmarshal([]byte(r.IPAMV4Info), &infos) != nil ||
		len(infos) == 0 || len(infos) > maxPoolsOf {
		return network.Pool{}, fmt.Errorf("%w: its addresses", errRecord)
	}
	if len(infos) > 1 {
		return network.Pool{}, errors.New("it has more than one subnet, each with a VNI of its own")
	}
	var d ipamData
	if err := json.Unmarshal([]byte(infos[0].IPAMData), &d); err != nil {
		return network.Pool{}, fmt.Errorf("%w: %w", errRecord, err)
	}
	subnet, err := netip.ParsePrefix(d.Pool)
	if err != nil || !subnet.Addr().Is4() || subnet != subnet.Masked() || subnet.Bits() < 8 || subnet.Bits() > 30 ||
		d.AddressSpace != addressSpace || len(d.AuxAddresses) > maxAux {
		return network.Pool{}, fmt.Errorf("%w: subnet %.40q in %.40q", errRecord, d.Pool, d.AddressSpace)
	}
	p := network.Pool{Subnet: subnet}
	if g, err := netip.ParsePrefix(d.Gateway); err == nil && subnet.Contains(g.Addr()) {
		p.Gateway = g.Addr()
	} else {
		return network.Pool{}, fmt.Errorf("%w: gateway %.40q", errRecord, d.Gateway)
	}
	for name, a := range d.AuxAddresses {
		aux, err := netip.ParsePrefix(a)
		if err != nil || !subnet.Contains(aux.Addr()) || len(name) > maxName {
			return network.Pool{}, fmt.Errorf("%w: address %.40q", errRecord, a)
		}
		if p.Aux == nil {
			p.Aux = map[string]netip.Addr{}
		}
		p.Aux[name] = aux.Addr()
	}
	if len(configs) == 1 {
		p.Configured = configs[0].PreferredPool != ""
		if r, err := netip.ParsePrefix(configs[0].SubPool); err == nil && subnet.Contains(r.Addr()) &&
			r.Bits() >= subnet.Bits() {
			p.Range = r.Masked()
		}
	}
	return p, nil
}

// setOverlay adds what the driver has stored: the number on the wire, which is 0 until the network has an endpoint, and
// the MTU.
func setOverlay(n *network.Network, text []byte) error {
	var r overlayRecord
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("network %s: %w: %w", n.Name, errRecord, err)
	}
	i := r.subnet(n.Pools[0].Subnet)
	switch {
	case r.Secure:
		return fmt.Errorf("network %s is encrypted with IPsec, which needs the kernel's privileges", n.Name)
	case i < 0 || r.Subnets[i].Vni >= lastVNI:
		return fmt.Errorf("network %s: %w: its number on the wire", n.Name, errRecord)
	}
	n.VNI = r.Subnets[i].Vni
	n.Options = map[string]string{optEncrypted: "false"}
	if r.MTU >= minMTU && r.MTU <= maxMTU {
		n.Options[optMTU] = fmt.Sprint(r.MTU)
	}
	return nil
}

// Names of options of package network, and the MTUs that the second one takes.
const (
	optEncrypted   = "encrypted"
	optMTU         = "com.docker.network.driver.mtu"
	minMTU, maxMTU = 68, 65520
)

// isID says whether s is one of Docker's ids: 64 lower-case hexadecimal digits.
func isID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// endpointRecord is an endpoint as the daemons store it. They need all of these fields.
type endpointRecord struct {
	ID                string         `json:"id"`
	Name              string         `json:"name"` // the container's
	Anonymous         bool           `json:"anonymous"`
	DisableResolution bool           `json:"disableResolution"`
	Interface         interfaceIn    `json:"ep_iface"`
	ExposedPorts      []any          `json:"exposed_ports"`
	Generic           map[string]any `json:"generic"`
	IngressPorts      []any          `json:"ingressPorts"`
	JoinInfo          joinInfo       `json:"joinInfo"`
	LoadBalancer      bool           `json:"loadBalancer"`
	Locator           string         `json:"locator"`   // the host's address
	Aliases           []string       `json:"myAliases"` // the container's short id first
	Sandbox           string         `json:"sandbox"`   // "": the container does not run
	ServiceAliases    []string       `json:"svcAliases"`
	ServiceID         string         `json:"svcID"`
	ServiceName       string         `json:"svcName"`
	VirtualIP         string         `json:"virtualIP"`
}

type interfaceIn struct {
	Addr      string   `json:"addr"` // a prefix
	DstPrefix string   `json:"dstPrefix"`
	MAC       string   `json:"mac"`
	Routes    []string `json:"routes"`
	SrcName   string   `json:"srcName"`
	V4PoolID  string   `json:"v4PoolID"`
	V6PoolID  string   `json:"v6PoolID"`
}

type joinInfo struct {
	StaticRoutes          []any
	DisableGatewayService bool `json:"disableGatewayService"`
}

// genericHost is in the generic part of this program's endpoints, with the id of the host that wrote them. The
// daemons keep there what is their drivers'.
const genericHost = "usernet.host"

// endpoint is one as it counts here.
type endpoint struct {
	overlay.Elsewhere
	Owner string     // the id of the usernet host that wrote it; "": a daemon of Docker
	At    netip.Addr // of its host
	Text  []byte     // the record
}

// decodeEndpoint reads a record. Of one that does not run, or has no interface, only the address counts.
func decodeEndpoint(p Pair, n *network.Network) (*endpoint, error) {
	var r endpointRecord
	if err := json.Unmarshal(p.Value, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	if !isID(r.ID) || len(r.Name) > maxName || len(r.Aliases) > maxAliases || len(r.Sandbox) > maxName {
		return nil, fmt.Errorf("%w: endpoint %.80q", errRecord, r.ID)
	}
	at, err := netip.ParseAddr(r.Locator)
	if err != nil || !canBeHost(at) {
		return nil, fmt.Errorf("%w: endpoint %.12s on host %.40q", errRecord, r.ID, r.Locator)
	}
	addr, err := netip.ParsePrefix(r.Interface.Addr)
	subnet := n.Pools[0].Subnet
	if err != nil || !subnet.Contains(addr.Addr()) || addr.Addr() == n.Pools[0].Gateway {
		return nil, fmt.Errorf("%w: endpoint %.12s with address %.40q", errRecord, r.ID, r.Interface.Addr)
	}
	e := &endpoint{At: at.Unmap(), Text: p.Value}
	e.Endpoint = overlay.Endpoint{
		Network: n.ID, EndpointID: r.ID, Container: r.ID, Name: r.Name, Addrs: []netip.Addr{addr.Addr()},
		Running: r.Sandbox != "", Host: overlay.HostID(at.Unmap().String()), // Docker's hosts have no other name
	}
	if err := e.MAC.UnmarshalText([]byte(r.Interface.MAC)); err != nil || e.MAC[0]&1 != 0 {
		return nil, fmt.Errorf("%w: endpoint %.12s with MAC %.40q", errRecord, r.ID, r.Interface.MAC)
	}
	e.Owner, _ = r.Generic[genericHost].(string)
	if !r.Anonymous && r.Name != "" && !r.DisableResolution {
		e.DNSNames = append(e.DNSNames, r.Name)
	}
	for _, a := range r.Aliases {
		if a != "" && len(a) <= maxName && !r.DisableResolution {
			e.DNSNames, e.Names = append(e.DNSNames, a), append(e.Names, a)
		}
	}
	return e, nil
}

// canBeHost says whether frames can be sent to an address.
func canBeHost(a netip.Addr) bool {
	return a.Unmap().Is4() && overlay.CanBeHost(a)
}

// encodeEndpoint is the record of an endpoint of this host.
func encodeEndpoint(e overlay.Endpoint, subnet netip.Prefix, host string, at netip.Addr) ([]byte, error) {
	aliases := append([]string{e.Container[:min(12, len(e.Container))]}, e.Names...)
	return json.Marshal(endpointRecord{
		ID: e.EndpointID, Name: e.Name, Locator: at.String(), Sandbox: e.Container, VirtualIP: "<nil>",
		Aliases: aliases[:min(len(aliases), maxAliases)],
		Interface: interfaceIn{
			Addr: netip.PrefixFrom(e.Addrs[0], subnet.Bits()).String(), MAC: e.MAC.String(), DstPrefix: "eth",
			SrcName: "tap" + e.EndpointID[:7], V4PoolID: poolID(subnet),
		},
		ExposedPorts: []any{},
		Generic: map[string]any{
			"com.docker.network.endpoint.exposedports": []any{}, "com.docker.network.portmap": []any{},
			genericHost: host,
		},
	})
}
