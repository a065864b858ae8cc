package cluster

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/usernet/usernet/internal/hostaddr"
)

// Advertised is where other hosts reach this one: --cluster-advertise.
type Advertised struct {
	addr  netip.Addr // invalid: that of iface, or what leads to the others
	iface string
	port  uint16 // 0: chosen
}

// ParseAdvertise reads ADDRESS|INTERFACE[:PORT]. An IPv6 address with a port is in brackets. "" chooses.
func ParseAdvertise(s string) (Advertised, error) {
	if s == "" {
		return Advertised{}, nil
	}
	bad := fmt.Errorf("%q: give ADDRESS or INTERFACE, with :PORT or without", s)
	if a, err := netip.ParseAddr(s); err == nil {
		return checkAdvertised(Advertised{addr: a.Unmap()}, s)
	}
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i+1:]
	}
	var a Advertised
	if port != "" || strings.HasSuffix(s, ":") {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Advertised{}, bad
		}
		a.port = uint16(n)
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if addr, err := netip.ParseAddr(host); err == nil {
		a.addr = addr.Unmap()
	} else if len(host) == 0 || len(host) > 15 || strings.ContainsAny(host, "/ :") { // IFNAMSIZ in linux/if.h
		return Advertised{}, bad
	} else {
		a.iface = host
	}
	return checkAdvertised(a, s)
}

func checkAdvertised(a Advertised, s string) (Advertised, error) {
	if a.iface == "" && (!hostaddr.Possible(a.addr) || a.addr.Zone() != "") {
		return Advertised{}, fmt.Errorf("%q: other hosts cannot send to this address", s)
	}
	return a, nil
}

// Port is the one that was given; 0: none.
func (a Advertised) Port() uint16 { return a.port }

// Resolve returns the addresses at which this host is reached now, the best first. towards are the addresses that lead
// to the others, such as the store's: without an address or interface, the source address of the route to the first
// that has one counts.
func (a Advertised) Resolve(towards []string) ([]netip.Addr, error) {
	if a.addr.IsValid() {
		return []netip.Addr{a.addr}, nil
	}
	if a.iface != "" {
		return ofInterface(a.iface)
	}
	var errs []string
	for _, t := range towards {
		c, err := net.Dial("udp", t) // nothing is sent: the kernel chooses a route
		if err != nil {
			errs = append(errs, err.Error())
			continue
		}
		local, err := netip.ParseAddrPort(c.LocalAddr().String())
		_ = c.Close()
		if err == nil && !local.Addr().IsLoopback() {
			return []netip.Addr{local.Addr().Unmap()}, nil
		}
	}
	all, err := globalAddrs()
	if err == nil && len(all) > 0 {
		return all[:1], nil
	}
	return nil, fmt.Errorf(
		"no address of this host is found at which others could reach it (%s): give one with --cluster-advertise",
		strings.Join(errs, "; "),
	)
}

// ofInterface are the addresses of an interface that others can reach, IPv4 first.
func ofInterface(name string) ([]netip.Addr, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("the advertised interface %s: %w", name, err)
	}
	list, err := i.Addrs()
	if err != nil {
		return nil, err
	}
	found := usable(list)
	if len(found) == 0 {
		return nil, fmt.Errorf("the advertised interface %s has no address that others could reach", name)
	}
	return found, nil
}

func globalAddrs() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	return usable(list), err
}

func usable(list []net.Addr) []netip.Addr {
	var found []netip.Addr
	for _, x := range list {
		if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr().Unmap().IsGlobalUnicast() &&
			!p.Addr().IsLoopback() {
			found = append(found, p.Addr().Unmap())
		}
	}
	slices.SortStableFunc(found, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	return found
}
