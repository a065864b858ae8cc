package overlay

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Kind is what a key is about: its first part.
type Kind string

// The kinds of records.
const (
	KindAlive    Kind = "alive"
	KindHost     Kind = "hosts"
	KindNetwork  Kind = "nets"
	KindName     Kind = "netnames"
	KindPool     Kind = "pools"
	KindVNI      Kind = "vnis"
	KindBlock    Kind = "blocks"
	KindEndpoint Kind = "eps"
	KindRoute    Kind = "routes"
)

// MaxKey is the length of the longest key: netnames/ and a name of 255 bytes, each of which may be written as three.
const MaxKey = 9 + 3*maxText

// AliveKey is the key that says that a host is heard of.
func AliveKey(h HostID) string { return string(KindAlive) + "/" + string(h) }

// HostKey is a host's key.
func HostKey(h HostID) string { return string(KindHost) + "/" + string(h) }

// NetworkKey is a network's key.
func NetworkKey(id string) string { return string(KindNetwork) + "/" + id }

// NameKey is the key that one network with a name can have.
func NameKey(name string) string { return string(KindName) + "/" + url.PathEscape(name) }

// PoolKey is the key that one network with a subnet can have.
func PoolKey(p netip.Prefix) string { return string(KindPool) + "/" + prefixText(p) }

// VNIKey is the key that one network with a number can have.
func VNIKey(vni uint32) string { return string(KindVNI) + "/" + strconv.FormatUint(uint64(vni), 10) }

// BlockKey is the key of a part of a network's subnet.
func BlockKey(network string, p netip.Prefix) string {
	return string(KindBlock) + "/" + network + "/" + prefixText(p)
}

// EndpointKey is the key of an address on a network.
func EndpointKey(network string, a netip.Addr) string {
	return string(KindEndpoint) + "/" + network + "/" + a.String()
}

// RouteKey is the key that one host that a subnet is behind can have.
func RouteKey(p netip.Prefix) string { return string(KindRoute) + "/" + prefixText(p) }

// prefixText writes a prefix without a slash, which separates the parts of a key.
func prefixText(p netip.Prefix) string { return fmt.Sprintf("%s-%d", p.Addr(), p.Bits()) }

func parsePrefixText(s string) (netip.Prefix, error) {
	addr, bits, ok := strings.Cut(s, "-")
	if !ok {
		return netip.Prefix{}, fmt.Errorf("%.80q is no prefix", s)
	}
	return netip.ParsePrefix(addr + "/" + bits)
}

// ParsedKey is what a key says. Only the fields of its kind are set.
type ParsedKey struct {
	Kind    Kind
	Host    HostID
	Network string // id
	Name    string
	Prefix  netip.Prefix
	VNI     uint32
	Addr    netip.Addr
}

// ParseKey reads a key. There is one way to write each: a key that would be written otherwise is refused.
func ParseKey(key string) (ParsedKey, error) {
	bad := func() (ParsedKey, error) { return ParsedKey{}, fmt.Errorf("key %.120q is none of usernet's", key) }
	if len(key) > MaxKey {
		return bad()
	}
	kind, rest, _ := strings.Cut(key, "/")
	k := ParsedKey{Kind: Kind(kind)}
	var err error
	var again string
	switch k.Kind {
	case KindAlive, KindHost:
		k.Host, err = ParseHostID(rest)
		again = kind + "/" + string(k.Host)
	case KindNetwork:
		k.Network = rest
		again = NetworkKey(rest)
	case KindName:
		k.Name, err = url.PathUnescape(rest)
		again = NameKey(k.Name)
	case KindPool:
		if k.Prefix, err = parsePrefixText(rest); err == nil {
			again = PoolKey(k.Prefix)
		}
	case KindRoute:
		if k.Prefix, err = parsePrefixText(rest); err == nil {
			again = RouteKey(k.Prefix)
		}
	case KindVNI:
		var n uint64
		n, err = strconv.ParseUint(rest, 10, 32)
		k.VNI = uint32(n)
		again = VNIKey(k.VNI)
	case KindBlock, KindEndpoint:
		var last string
		k.Network, last, _ = strings.Cut(rest, "/")
		if k.Kind == KindBlock {
			if k.Prefix, err = parsePrefixText(last); err == nil {
				again = BlockKey(k.Network, k.Prefix)
			}
		} else if k.Addr, err = netip.ParseAddr(last); err == nil {
			again = EndpointKey(k.Network, k.Addr)
		}
	default:
		return bad()
	}
	if err != nil || again != key {
		return bad()
	}
	if n := k.Network; (k.Kind == KindNetwork || k.Kind == KindBlock || k.Kind == KindEndpoint) && !isHex(n, idLen) {
		return bad()
	}
	return k, nil
}
