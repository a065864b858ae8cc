package flannel

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/kv"
)

// Keys below the prefix.
const (
	configKey    = "config"
	subnetFolder = "subnets/"
)

// lease is a node's lease, as it is in the store.
type lease struct {
	subnet   netip.Prefix
	public   netip.Addr // where the node is reached
	backend  string
	vni      uint32
	mac      overlay.MAC // of the node's VTEP; zero where the backend has none
	revision kv.Revision // of the key
}

// fileLease is a lease's JSON. Backend udp has neither a type nor data.
type fileLease struct {
	PublicIP    string
	PublicIPv6  *string
	BackendType string          `json:",omitempty"`
	BackendData json.RawMessage `json:",omitempty"`
}

type vxlanData struct {
	VNI     uint32
	VtepMAC string
}

// subnetKey is the key of a subnet's lease.
func subnetKey(p netip.Prefix) string {
	return fmt.Sprintf("%s%v-%d", subnetFolder, p.Addr(), p.Bits())
}

// parseSubnet reads a subnet from its key; of a node with both families it is the IPv4 one.
func parseSubnet(key string) (netip.Prefix, error) {
	name, ok := strings.CutPrefix(key, subnetFolder)
	name, _, _ = strings.Cut(name, "&")
	p, err := netip.ParsePrefix(strings.Replace(name, "-", "/", 1))
	if !ok || err != nil || !p.Addr().Is4() || p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("key %.80q is no subnet's", key)
	}
	return p, nil
}

// parseLease reads a node's lease.
func parseLease(p kv.Pair) (lease, error) {
	subnet, err := parseSubnet(p.Key)
	if err != nil {
		return lease{}, err
	}
	if len(p.Value) > maxValue {
		return lease{}, fmt.Errorf("the lease of %v has %d bytes: %d are possible", subnet, len(p.Value), maxValue)
	}
	var f fileLease
	if err := json.Unmarshal(p.Value, &f); err != nil {
		return lease{}, fmt.Errorf("the lease of %v: %w", subnet, err)
	}
	l := lease{subnet: subnet, backend: f.BackendType, revision: p.Revision}
	if l.backend == "" {
		l.backend = backendUDP
	}
	if l.public, err = netip.ParseAddr(f.PublicIP); err != nil || !l.public.Is4() || !overlay.CanBeHost(l.public) {
		return lease{}, fmt.Errorf("the lease of %v: PublicIP %.40q is no IPv4 address of a node", subnet, f.PublicIP)
	}
	if l.backend != backendVXLAN {
		return l, nil
	}
	var data vxlanData
	if err := json.Unmarshal(f.BackendData, &data); err != nil {
		return lease{}, fmt.Errorf("the lease of %v: BackendData: %w", subnet, err)
	}
	if l.mac, err = parseMAC(data.VtepMAC); err != nil {
		return lease{}, fmt.Errorf("the lease of %v: VtepMAC: %w", subnet, err)
	}
	l.vni = data.VNI
	return l, nil
}

// parseMAC reads the MAC of a single station.
func parseMAC(s string) (m overlay.MAC, err error) {
	hw, err := net.ParseMAC(s)
	if err == nil && (len(hw) != len(m) || hw[0]&1 != 0) {
		err = errors.New("it is no station's")
	}
	copy(m[:], hw)
	return m, err
}

// encode is the lease's JSON.
func (l lease) encode() ([]byte, error) {
	f := fileLease{PublicIP: l.public.String()}
	if l.backend == backendVXLAN {
		data, err := json.Marshal(vxlanData{VNI: l.vni, VtepMAC: net.HardwareAddr(l.mac[:]).String()})
		if err != nil {
			return nil, err
		}
		f.BackendType, f.BackendData = backendVXLAN, data
	}
	return json.Marshal(f)
}

// sameNode says whether two leases say the same of their node.
func (l lease) sameNode(o lease) bool {
	l.revision, o.revision = 0, 0
	return l == o
}
