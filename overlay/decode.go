package overlay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/usernet/usernet/network"
)

// Bounds of records.
const (
	// MaxRecord is the size of a record in bytes. With its key and who wrote it, it fits into one gossip datagram of
	// 1400 bytes (memberlist's UDPBufferSize for the Internet's paths).
	MaxRecord = 1024

	// MaxVNI is the largest number of a network on the wire.
	MaxVNI = network.MaxVNI

	maxText  = 255 // bytes of a name: what DNS and network names are bounded by
	maxAddrs = 8   // addresses of a host for each transport
	maxSeen  = 8   // hosts that a host reports the address of
	maxNames = 32  // further names of an endpoint
	maxTags  = 16  // of an endpoint
	maxPairs = 32  // options, labels, auxiliary addresses
	idLen    = 64  // digits of the ids of networks, endpoints and containers
)

// Decode reads a record strictly: an unknown field, a field out of its bounds, or anything after the record is an
// error.
func Decode[R record](b []byte) (R, error) {
	var r, none R
	if len(b) > MaxRecord {
		return none, fmt.Errorf("a record of %d bytes: %d are possible", len(b), MaxRecord)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return none, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return none, errors.New("something follows the record")
	}
	if err := r.check(); err != nil {
		return none, err
	}
	return r, nil
}

func (h Host) check() error {
	if _, err := ParseHostID(string(h.ID)); err != nil {
		return err
	}
	if len(h.Addrs) > maxAddrs || len(h.TCP) > maxAddrs || len(h.Codecs) > maxAddrs || len(h.Seen) > maxSeen {
		return fmt.Errorf("host %s has too many addresses", h.ID.Short())
	}
	for _, list := range [][]netip.AddrPort{h.Addrs, h.TCP} {
		for _, a := range list {
			if !usableAddr(a) {
				return fmt.Errorf("host %s has the address %s", h.ID.Short(), a)
			}
		}
	}
	for id, a := range h.Seen {
		if _, err := ParseHostID(string(id)); err != nil || !a.IsValid() {
			return fmt.Errorf("host %s saw host %.40q at %s", h.ID.Short(), id, a)
		}
	}
	if h.MTU < 0 || h.MTU > 1<<16 {
		return fmt.Errorf("host %s has an MTU of %d", h.ID.Short(), h.MTU)
	}
	return checkTexts(append([]string{h.Name, h.Version}, h.Codecs...)...)
}

// usableAddr says whether datagrams can be sent to a.
func usableAddr(a netip.AddrPort) bool {
	ip := a.Addr()
	return a.IsValid() && a.Port() != 0 && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.Is4In6()
}

func (n Network) check() error {
	switch {
	case !isHex(n.ID, idLen):
		return fmt.Errorf("network id %.80q", n.ID)
	case n.Name == "":
		return errors.New("a network without a name")
	case n.VNI == 0 || n.VNI > MaxVNI:
		return fmt.Errorf("network %.80q has the number %d on the wire", n.Name, n.VNI)
	case len(n.Subnets) == 0 || len(n.Subnets) > maxAddrs:
		return fmt.Errorf("network %.80q has %d subnets", n.Name, len(n.Subnets))
	case len(n.Options) > maxPairs || len(n.Labels) > maxPairs:
		return fmt.Errorf(
			"network %.80q has %d options and %d labels: %d of each are possible",
			n.Name,
			len(n.Options),
			len(n.Labels),
			maxPairs,
		)
	}
	if _, err := ParseHostID(string(n.Creator)); err != nil {
		return err
	}
	for _, s := range n.Subnets {
		if err := s.check(); err != nil {
			return err
		}
	}
	if err := checkTexts(n.Name); err != nil {
		return err
	}
	for _, pairs := range []map[string]string{n.Options, n.Labels} {
		for k, v := range pairs {
			if len(k) > maxText || !utf8.ValidString(k) || !utf8.ValidString(v) {
				return fmt.Errorf("network %q has an option or label %.80q", n.Name, k)
			}
		}
	}
	return nil
}

func (s Subnet) check() error {
	p := s.Subnet
	if !p.IsValid() || p != p.Masked() || p.Bits() > p.Addr().BitLen()-2 || p.Addr().Is4In6() {
		return fmt.Errorf("subnet %s", p)
	}
	if s.Gateway.IsValid() && !p.Contains(s.Gateway) {
		return fmt.Errorf("subnet %s with the gateway %s", p, s.Gateway)
	}
	if r := s.Range; r.IsValid() && (r != r.Masked() || r.Bits() < p.Bits() || !p.Contains(r.Addr())) {
		return fmt.Errorf("subnet %s with the range %s", p, r)
	}
	if len(s.Aux) > maxPairs {
		return fmt.Errorf("subnet %s with %d auxiliary addresses", p, len(s.Aux))
	}
	for name, a := range s.Aux {
		if !p.Contains(a) {
			return fmt.Errorf("subnet %s with the auxiliary address %s", p, a)
		}
		if err := checkTexts(name); err != nil {
			return err
		}
	}
	return nil
}

func (e Endpoint) check() error {
	switch {
	case !isHex(e.Network, idLen) || !isHex(e.EndpointID, idLen) || !isHex(e.Container, idLen):
		return fmt.Errorf("endpoint %.80q of container %.80q on network %.80q", e.EndpointID, e.Container, e.Network)
	case len(e.Addrs) == 0 || len(e.Addrs) > 2 || len(e.Addrs) == 2 && e.Addrs[0].Is4() == e.Addrs[1].Is4():
		return fmt.Errorf("endpoint %.12s has the addresses %v", e.EndpointID, e.Addrs)
	case e.MAC[0]&1 != 0 || e.MAC == (MAC{}):
		return fmt.Errorf("endpoint %.12s has the MAC address %s", e.EndpointID, e.MAC)
	case len(e.Tags) > maxTags:
		return fmt.Errorf("endpoint %.12s has %d tags: %d are possible", e.EndpointID, len(e.Tags), maxTags)
	case len(e.Names) > maxNames:
		return fmt.Errorf("endpoint %.12s has %d names: %d are possible", e.EndpointID, len(e.Names), maxNames)
	}
	for _, a := range e.Addrs {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Zone() != "" || a.Is4In6() {
			return fmt.Errorf("endpoint %.12s has the address %s", e.EndpointID, a)
		}
	}
	if _, err := ParseHostID(string(e.Host)); err != nil {
		return err
	}
	return checkTexts(slices.Concat([]string{e.Name}, e.Names, e.Tags)...)
}

func (b Block) check() error {
	if !isHex(b.Network, idLen) || !b.Prefix.IsValid() || b.Prefix != b.Prefix.Masked() {
		return fmt.Errorf("block %s of network %.80q", b.Prefix, b.Network)
	}
	_, err := ParseHostID(string(b.Host))
	return err
}

func (r Route) check() error {
	if err := CheckRoute(r.Prefix); err != nil {
		return err
	}
	_, err := ParseHostID(string(r.Host))
	return err
}

// Shortest prefixes of routes: nothing that draws a large part of all addresses to one host.
const (
	minRoute4 = 8
	minRoute6 = 16
)

// unroutable are addresses that mean something else on each host, or are no single one's.
var unroutable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"), netip.MustParsePrefix("::/32"), netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("64:ff9b::/96"),
}

// CheckRoute says why no host may be the way to a subnet; nil where one may.
func CheckRoute(p netip.Prefix) error {
	least := minRoute4
	if p.Addr().Is6() {
		least = minRoute6
	}
	switch {
	case !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "":
		return fmt.Errorf("%s is no subnet", p)
	case p.Bits() < least:
		return fmt.Errorf("%s is too large to be behind one host: /%d and smaller are possible", p, least)
	}
	for _, u := range unroutable {
		if u.Overlaps(p) {
			return fmt.Errorf("%s has addresses of %s, which mean something else on each host", p, u)
		}
	}
	return nil
}

func (n Name) check() error {
	if !isHex(n.Network, idLen) {
		return fmt.Errorf("network id %.80q", n.Network)
	}
	return nil
}

// checkTexts refuses what is too long for a name, or could give orders to a terminal.
func checkTexts(list ...string) error {
	for _, s := range list {
		if len(s) > maxText {
			return fmt.Errorf("a name of %d bytes: %d are possible", len(s), maxText)
		}
		if !utf8.ValidString(s) {
			return fmt.Errorf("a name that is not UTF-8: %.80q", s)
		}
		for _, r := range s {
			if unicode.IsControl(r) {
				return fmt.Errorf("a name with control characters: %.80q", s)
			}
		}
	}
	return nil
}
