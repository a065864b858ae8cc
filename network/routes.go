package network

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/usernet/usernet/internal/errdefs"
)

// maxRoutes bounds the routes of an endpoint, which are set one by one.
const maxRoutes = 64

// MaxVLAN is the highest VLAN id: 4095 is reserved (IEEE 802.1Q, table 9-2).
const MaxVLAN = 4094

// ParseRoute reads a value of --route: CIDR[=GATEWAY].
func ParseRoute(s string) (Route, error) {
	dst, via, given := strings.Cut(s, "=")
	var r Route
	var err error
	if r.Dst, err = netip.ParsePrefix(dst); err != nil {
		return r, errdefs.Invalid("invalid route %q: give CIDR, or CIDR=GATEWAY, such as 10.1.0.0/16=192.0.2.1", s)
	}
	if given {
		if r.Via, err = netip.ParseAddr(via); err != nil || r.Via.Zone() != "" {
			return r, errdefs.Invalid("invalid route %q: %q is no address of a gateway", s, via)
		}
	}
	return r, r.check()
}

// check refuses what is no route, or is said in another way.
func (r Route) check() error {
	switch {
	case !r.Dst.IsValid() || r.Dst != r.Dst.Masked():
		return errdefs.Invalid("invalid route to %s: it should be to %s", r.Dst, r.Dst.Masked())
	case r.Dst.Bits() == 0:
		return errdefs.Invalid("invalid route to %s: the network with the highest --gw-priority has the default route",
			r.Dst)
	case r.Via.IsValid() && r.Via.Is4() != r.Dst.Addr().Is4():
		return errdefs.Invalid("invalid route to %s via %s: they are of two address families", r.Dst, r.Via)
	}
	return nil
}

// ParseVLAN reads a value of --vlan.
func ParseVLAN(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || n > MaxVLAN {
		return 0, errdefs.Invalid("invalid VLAN %q: give a number from 1 to %d", s, MaxVLAN)
	}
	return uint16(n), nil
}

// checkRouting refuses routes and VLANs that cannot be.
func checkRouting(spec *EndpointSpec) error {
	if len(spec.Routes) > maxRoutes {
		return errdefs.Invalid("%d routes: an interface may have %d", len(spec.Routes), maxRoutes)
	}
	if spec.VLAN > MaxVLAN {
		return errdefs.Invalid("invalid VLAN %d: give a number from 1 to %d", spec.VLAN, MaxVLAN)
	}
	for _, r := range spec.Routes {
		if err := r.check(); err != nil {
			return err
		}
	}
	return nil
}
