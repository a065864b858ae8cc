package libnetwork

import (
	"encoding/json"
	"net/netip"
)

// The bodies of the remote driver's calls, as libnetwork's drivers/remote/api has them. Names are those on the wire.

type createNetworkRequest struct {
	NetworkID string
	Options   map[string]json.RawMessage
	IPv4Data  []ipamData
	IPv6Data  []ipamData
}

type ipamData struct {
	AddressSpace string // whose the pool is: addressSpace, or that of another IPAM driver
	Pool         string
	Gateway      string
	AuxAddresses map[string]string
}

type endpointInterface struct {
	Address     string `json:",omitempty"`
	AddressIPv6 string `json:",omitempty"`
	MacAddress  string `json:",omitempty"`
}

// endpointRequest is what all calls about an endpoint have.
type endpointRequest struct {
	NetworkID  string
	EndpointID string
	Interface  *endpointInterface
	Options    map[string]json.RawMessage
}

type createEndpointResponse struct{ Interface endpointInterface }

type joinResponse struct {
	InterfaceName struct {
		SrcName   string
		DstPrefix string
	}
	Gateway               string `json:",omitempty"`
	GatewayIPv6           string `json:",omitempty"`
	DisableGatewayService bool
}

// The bodies of the IPAM driver's calls (libnetwork's ipams/remote/api).

type poolRequest struct {
	PoolID  string // of ReleasePool
	Pool    string
	SubPool string
	Options map[string]string
	V6      bool
}

type poolResponse struct {
	PoolID string
	Pool   string
	Data   map[string]string
}

type addressRequest struct {
	PoolID  string
	Address string
	Options map[string]string
}

type addressResponse struct {
	Address string
	Data    map[string]string
}

// Names of options (libnetwork's netlabel package).
const (
	optionGeneric     = "com.docker.network.generic"
	optionInternal    = "com.docker.network.internal"
	optionPortMap     = "com.docker.network.portmap"
	optionAddressType = "RequestAddressType"
	gatewayAddress    = "com.docker.network.gateway"
	// optionNetwork names the daemon's network, among both --opt and --ipam-opt.
	optionNetwork = "network"
)

// prefixes are those of a list of pools, without their families' order.
func (d ipamData) prefix() (netip.Prefix, error) {
	p, err := netip.ParsePrefix(d.Pool)
	return p.Masked(), err
}
