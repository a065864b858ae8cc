package pasta

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/usernet/usernet/runtimes/joined"
)

// maxName is the longest name in the DNS, in characters (RFC 1035 section 3.1, written without the root's dot).
const maxName = 253

// maxMTU is pasta's limit, and that of TAPs, in bytes: an IP packet of 65535 bytes less an Ethernet header.
const maxMTU = 65521

// minLog is the smallest log file that makes sense, in bytes.
const minLog = 4096

// resolve checks the flags that have a value.
func (o *Options) resolve(v *values) (err error) {
	o.Debug = o.Debug || o.Trace
	o.Networks, o.Name = joined.Networks(v.networks), joined.Name(v.name)
	o.IPv4, o.IPv6 = !v.only6, !v.only4
	o.MTU = defaultMTU
	if v.mtu != "" {
		if o.MTU, err = strconv.Atoi(v.mtu); err != nil || o.MTU < 0 || o.MTU > maxMTU || o.MTU > 0 && o.MTU < 68 {
			return fmt.Errorf("invalid MTU: %s: give 68 to %d bytes, or 0 to assign none", v.mtu, maxMTU)
		}
	}
	if err := o.resolveAddresses(v); err != nil {
		return err
	}
	if o.Netmask, err = netmask(v.netmask); err != nil {
		return err
	}
	if o.RouterMAC, err = mac("mac-addr", v.mac); err != nil {
		return err
	}
	if o.MAC, err = mac("ns-mac-addr", v.nsMAC); err != nil {
		return err
	}
	if err := o.resolvePorts(); err != nil {
		return err
	}
	if err := o.checkLengths(); err != nil {
		return err
	}
	if !o.ConfigNet && (o.NoCopyRoutes || o.NoCopyAddrs) {
		return errors.New("--no-copy-routes and --no-copy-addrs need --config-net")
	}
	return o.resolveNames(v)
}

// resolveAddresses sorts the addresses of each option by family.
func (o *Options) resolveAddresses(v *values) error {
	for _, p := range []struct {
		name   string
		values []string
		to     *[2]netip.Addr
		none   *bool
	}{
		{"address", v.addrs, &o.Addrs, nil},
		{"gateway", v.gateways, &o.Gateways, nil},
		{"outbound", v.outbound, &o.Outbound, nil},
		{"dns-forward", v.dnsForward, &o.DNSForward, nil},
		{"dns-host", v.dnsHost, &o.DNSHost, nil},
		{"map-host-loopback", v.mapLoopback, &o.MapHostLoopback, &o.NoMapLoopback},
		{"map-guest-addr", v.mapGuest, &o.MapGuestAddr, new(bool)},
	} {
		if err := families(p.name, p.values, p.to, p.none); err != nil {
			return err
		}
	}
	if o.NoMapLoopback {
		o.NoMapGateway = true
	}
	return nil
}

// resolvePorts gives each direction and protocol its mode, and checks the ports of the namespace.
func (o *Options) resolvePorts() error {
	for _, p := range []struct {
		name  string
		ports *Ports
		ns    bool
		off   bool
	}{
		{"tcp-ports", &o.TCP, false, o.NoTCP},
		{"udp-ports", &o.UDP, false, o.NoUDP},
		{"tcp-ns", &o.TCPNS, true, o.NoTCP},
		{"udp-ns", &o.UDPNS, true, o.NoUDP},
	} {
		if p.off && p.ports.Mode != ModeUnset && p.ports.Mode != ModeNone {
			return fmt.Errorf("ports of --%s are asked for, and the protocol is switched off", p.name)
		}
		if p.ports.Mode == ModeUnset {
			p.ports.Mode = ModeAuto
		}
		for _, r := range p.ports.Ranges {
			if p.ns && (r.Addr.IsValid() || r.Interface != "") {
				return fmt.Errorf(
					"invalid port specifier of --%s: ports of the namespace are its loopback's; give no address and no interface",
					p.name,
				)
			}
		}
	}
	return nil
}

// checkLengths checks what has a length or size that others fix.
func (o *Options) checkLengths() error {
	for _, p := range []struct{ name, value string }{{"hostname", o.Hostname}, {"fqdn", o.FQDN}} {
		if len(p.value) > maxName {
			return fmt.Errorf("invalid %s: %s: %d characters at most", p.name, p.value, maxName)
		}
	}
	if o.LogSize < minLog {
		return fmt.Errorf("invalid log-size: %d: %d bytes at least", o.LogSize, minLog)
	}
	if len(o.Interface) > 15 { // IFNAMSIZ in <linux/if.h>
		return fmt.Errorf("invalid interface name: %s: 15 characters at most", o.Interface)
	}
	return nil
}

func (o *Options) resolveNames(v *values) error {
	for _, s := range v.dns {
		if s == "none" || s == "" {
			o.DNS, o.NoDNS = nil, true
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("cannot parse DNS address %s", s)
		}
		o.DNS, o.NoDNS = append(o.DNS, a), false
	}
	for _, s := range v.search {
		if s == "none" || s == "" {
			o.Search, o.NoSearch = nil, true
			continue
		}
		o.Search, o.NoSearch = append(o.Search, strings.Fields(s)...), false
	}
	return nil
}

// families sorts addresses by family; the last one of each counts.
func families(name string, list []string, to *[2]netip.Addr, none *bool) error {
	for _, s := range list {
		if s == "none" && none != nil {
			*to, *none = [2]netip.Addr{}, true
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("invalid %s: %s: give an IPv4 or an IPv6 address", name, s)
		}
		if !isHosts(a) || a.IsLoopback() && !loopbackFits(name, a) {
			return fmt.Errorf("invalid %s: %s: give an address that others can reach", name, s)
		}
		if a.Is4() {
			to[v4] = a
		} else {
			to[v6] = a
		}
	}
	return nil
}

// isHosts says whether an address may be that of one machine.
func isHosts(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// loopbackFits says whether an option may have this address of a loopback, which is the host's: a name server there can
// be asked, and IPv4 connections can come from there.
func loopbackFits(name string, a netip.Addr) bool {
	return name == "dns-host" || name == "outbound" && a.Is4()
}

func netmask(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	if bits, err := strconv.Atoi(s); err == nil && bits >= 0 && bits <= 32 {
		return bits, nil
	}
	if ip := net.ParseIP(s).To4(); ip != nil {
		if ones, size := net.IPMask(ip).Size(); size == 32 {
			return ones, nil
		}
	}
	return 0, fmt.Errorf("invalid netmask: %s: give the number of bits, or a mask like 255.255.255.0", s)
}

func mac(name, s string) (net.HardwareAddr, error) {
	if s == "" {
		return nil, nil
	}
	m, err := net.ParseMAC(s)
	if err != nil || len(m) != 6 || m[0]&1 != 0 {
		return nil, fmt.Errorf("invalid %s: %s: give the MAC address of one station, like 02:00:00:00:00:01", name, s)
	}
	return m, nil
}
