package flannel

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/usernet/usernet/overlay/fabric"
)

// The backends that a node without privileges can be of.
const (
	backendVXLAN = "vxlan"
	backendUDP   = "udp"
)

const (
	// vxlanPort is what flannel's vxlan has where the configuration says 0: the default of Linux.
	vxlanPort  = 8472
	defaultVNI = 1

	// subnetLen is how long a node's subnet is where nothing is said, in a network of networkLen or more; smaller
	// networks are divided in four (flannel: CheckNetworkConfig).
	subnetLen, networkLen = 24, 22
	// maxSubnetLen leaves a subnet two addresses besides its first and last.
	maxSubnetLen = 30

	// maxValue bounds a value in the store, in bytes: flannel's own are below 1 KiB.
	maxValue = 16 << 10
)

// Config is a flannel network's configuration, checked and with its defaults.
type Config struct {
	Network     netip.Prefix
	SubnetLen   int
	Min, Max    netip.Addr // the first and the last subnet that nodes get
	Backend     string
	VNI         uint32
	Port        uint16
	MTU         int // of the nodes' interfaces; 0: what the path leaves
	DirectRoute bool
}

// fileConfig is the JSON that people write.
type fileConfig struct {
	EnableIPv4 *bool
	EnableIPv6 bool
	Network    string
	SubnetMin  string
	SubnetMax  string
	SubnetLen  int
	Backend    struct {
		Type          string
		VNI           uint32
		Port          uint16
		MTU           int
		GBP           bool
		DirectRouting bool
	}
}

// parseConfig reads a configuration. What this host cannot take part in is refused with the reason.
func parseConfig(text []byte) (Config, error) {
	var f fileConfig
	if len(text) > maxValue {
		return Config{}, fmt.Errorf("flannel's configuration has %d bytes: %d are possible", len(text), maxValue)
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return Config{}, fmt.Errorf("flannel's configuration is no JSON as flanneld reads it: %w", err)
	}
	if f.EnableIPv6 || f.EnableIPv4 != nil && !*f.EnableIPv4 {
		return Config{}, fmt.Errorf("flannel's configuration has EnableIPv6: usernet is a node of IPv4 networks only")
	}
	c := Config{
		SubnetLen: f.SubnetLen, VNI: f.Backend.VNI, Port: f.Backend.Port, MTU: f.Backend.MTU,
		DirectRoute: f.Backend.DirectRouting,
	}
	var err error
	if c.Network, err = netip.ParsePrefix(f.Network); err != nil || !c.Network.Addr().Is4() {
		return Config{}, fmt.Errorf("flannel's configuration: Network %q is no IPv4 network", f.Network)
	}
	c.Network = c.Network.Masked()
	if err := c.setSubnets(f.SubnetMin, f.SubnetMax); err != nil {
		return Config{}, err
	}
	return c, c.setBackend(f.Backend.Type, f.Backend.GBP)
}

// setSubnets fills in what nodes get.
func (c *Config) setSubnets(first, last string) error {
	bits := c.Network.Bits()
	switch {
	case c.SubnetLen == 0 && bits <= networkLen:
		c.SubnetLen = subnetLen
	case c.SubnetLen == 0:
		c.SubnetLen = bits + 2
	}
	if c.SubnetLen < bits+2 || c.SubnetLen > maxSubnetLen {
		return fmt.Errorf("flannel's configuration: SubnetLen %d does not divide Network %v in four or more subnets "+
			"of four or more addresses", c.SubnetLen, c.Network)
	}
	size := uint32(1) << (32 - c.SubnetLen)
	base := number(c.Network.Addr())
	// The first subnet is never a node's: it would have the network's own address.
	c.Min, c.Max = address(base+size), address(base+uint32(1)<<(32-bits)-size)
	for _, x := range []struct {
		name, text string
		to         *netip.Addr
	}{{"SubnetMin", first, &c.Min}, {"SubnetMax", last, &c.Max}} {
		if x.text == "" {
			continue
		}
		a, err := netip.ParseAddr(x.text)
		if err != nil || !c.Network.Contains(a) || number(a)%size != 0 {
			return fmt.Errorf("flannel's configuration: %s %q is no subnet of %v", x.name, x.text, c.Network)
		}
		*x.to = a
	}
	if c.Max.Less(c.Min) {
		return fmt.Errorf("flannel's configuration: SubnetMax %v is below SubnetMin %v", c.Max, c.Min)
	}
	return nil
}

// setBackend refuses what only a kernel can do, and fills in defaults.
func (c *Config) setBackend(name string, gbp bool) error {
	why := ""
	switch name {
	case backendVXLAN:
		c.Backend = backendVXLAN
		if gbp {
			why = "GBP sets bits of the header that are a policy of the sender's kernel"
		}
		if c.VNI == 0 {
			c.VNI = defaultVNI
		}
		if c.VNI > fabric.MaxVNI {
			return fmt.Errorf("flannel's configuration: VNI %d is not from 1 to %d", c.VNI, fabric.MaxVNI)
		}
		if c.Port == 0 {
			c.Port = vxlanPort
		}
	case backendUDP, "":
		c.Backend = backendUDP
		if c.Port == 0 {
			c.Port = fabric.BareIP.Port()
		}
	case "host-gw":
		why = "nodes send packets of containers without any header, to this host's kernel"
	case "wireguard":
		why = "flannel's keys are those of the kernel's WireGuard interface"
	case "ipsec", "ipip":
		why = "it is an IP protocol of its own, which no unprivileged socket has"
	default:
		return fmt.Errorf("flannel's backend %q is unknown here, or a network of a cloud: usernet is a node of the backends "+
			"vxlan and udp", name)
	}
	if why != "" {
		return fmt.Errorf("flannel's backend %s takes privileges (%s): usernet is a node of the backends vxlan and udp",
			name, why)
	}
	if c.MTU != 0 && (c.MTU < 576 || c.MTU > 65000) {
		return fmt.Errorf("flannel's configuration: MTU %d", c.MTU)
	}
	return nil
}

// encap is how packets go between nodes.
func (c Config) encap() fabric.Encap {
	if c.Backend == backendUDP {
		return fabric.BareIP
	}
	return fabric.VXLAN
}

// subnets are how many subnets nodes can get.
func (c Config) subnets() uint32 { return (number(c.Max)-number(c.Min))>>(32-c.SubnetLen) + 1 }

// subnet is one of them, counted from 0.
func (c Config) subnet(i uint32) netip.Prefix {
	return netip.PrefixFrom(address(number(c.Min)+i<<(32-c.SubnetLen)), c.SubnetLen)
}

// fits says whether a subnet is one that a node of the network can have.
func (c Config) fits(p netip.Prefix) bool {
	return p.IsValid() && p.Bits() == c.SubnetLen && p == p.Masked() && c.Network.Contains(p.Addr()) &&
		!p.Addr().Less(c.Min) && !c.Max.Less(p.Addr())
}

// Last is the highest address of an IPv4 subnet.
func Last(p netip.Prefix) netip.Addr {
	return address(number(p.Addr()) | (uint32(1)<<(32-p.Bits()) - 1))
}

// number and address are an IPv4 address as a number, and back.
func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func address(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}
