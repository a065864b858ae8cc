package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/fabric"
	"github.com/usernet/usernet/overlay/table"
)

// Bounds of subnets behind hosts.
const (
	maxExposed = 64  // by one host
	maxVia     = 512 // of others that are used
)

// AcceptedRoute is a part of --cluster-accept-routes: subnets within Prefix are reached through the host that exposes
// them, or through one host alone.
type AcceptedRoute struct {
	Prefix netip.Prefix
	Host   string // the first digits of a host's id; "": any
}

// minHostDigits is how many digits of an id tell hosts apart.
const minHostDigits = 8

// ParseAcceptedRoute reads SUBNET[@HOST].
func ParseAcceptedRoute(s string) (AcceptedRoute, error) {
	prefix, host, at := strings.Cut(s, "@")
	p, err := netip.ParsePrefix(prefix)
	if err == nil {
		err = overlay.CheckRoute(p)
	}
	if err != nil {
		return AcceptedRoute{}, fmt.Errorf("cluster-accept-routes %q: %w: give SUBNET or SUBNET@HOST", s, err)
	}
	if at && (len(host) < minHostDigits || len(host) > 32 || strings.Trim(host, "0123456789abcdef") != "") {
		return AcceptedRoute{}, fmt.Errorf("cluster-accept-routes %q: after @ give %d or more digits of a host's id "+
			"(usernet cluster ls)", s, minHostDigits)
	}
	return AcceptedRoute{p, host}, nil
}

// RouteStatus is a subnet behind a host.
type RouteStatus struct {
	Prefix netip.Prefix
	Host   overlay.HostID
	// Unused is why this host does not send there; "": it does, or it is the host itself.
	Unused string
}

func exposedPath(dir string) string { return filepath.Join(dir, "exposed.json") }

// loadExposed reads what this host exposes. It alone decides that: a record in the table is not enough.
func loadExposed(dir string) (list []netip.Prefix, err error) {
	text, err := os.ReadFile(exposedPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	for i := 0; err == nil && i < len(list); i++ {
		err = overlay.CheckRoute(list[i])
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove it, and nothing is exposed", exposedPath(dir), err)
	}
	return list[:min(len(list), maxExposed)], nil
}

// setExposed changes what this host exposes, on disk first.
func (c *Cluster) setExposed(list []netip.Prefix) error {
	text, err := json.Marshal(list)
	if err == nil {
		err = overlay.ReplaceFile(exposedPath(c.cfg.Dir), text)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.mu.exposed = list
	c.mu.Unlock()
	return nil
}

// Exposed are the subnets that this host exposes.
func (c *Cluster) Exposed() []netip.Prefix {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.mu.exposed)
}

// Expose has containers of other hosts reach a subnet through this host, as its gateway does. One subnet is behind one
// host, and subnets behind different hosts do not overlap: who was first has it.
func (c *Cluster) Expose(ctx context.Context, p netip.Prefix) error {
	c.exposing.Lock()
	defer c.exposing.Unlock()
	t, own, list := c.Table(), c.Identity().ID, c.Exposed()
	for _, pool := range t.Pools() {
		if pool.Overlaps(p) {
			return errdefs.Conflict("%s overlaps %s, which is a network of the cluster", p, pool)
		}
	}
	for _, r := range t.Routes() {
		if r.Host != own && r.Prefix.Overlaps(p) {
			return errdefs.Conflict("%s overlaps %s, which host %s exposes", p, r.Prefix, c.hostName(r.Host))
		}
	}
	if !slices.Contains(list, p) {
		if list = append(list, p); len(list) > maxExposed {
			return errdefs.Conflict("%d subnets are exposed, and no more can be: expose a larger one in their place", maxExposed)
		}
	}
	if err := c.claimRoute(ctx, t, p); err != nil {
		return err
	}
	if err := c.setExposed(list); err != nil {
		t.Drop(overlay.RouteKey(p))
		return err
	}
	c.applyRoutes()
	return nil
}

func (c *Cluster) claimRoute(ctx context.Context, t *table.Table, p netip.Prefix) error {
	value, err := overlay.Encode(overlay.Route{Host: c.Identity().ID, Prefix: p})
	if err != nil {
		return err
	}
	err = t.Claim(ctx, overlay.RouteKey(p), value)
	var taken *table.TakenError
	switch {
	case errors.As(err, &taken):
		return errdefs.Conflict("host %s exposes %s", c.hostName(taken.Row.Owner), p)
	case err != nil:
		return errdefs.Unavailable("%s is not exposed: %w", p, err)
	}
	return nil
}

// Unexpose ends that.
func (c *Cluster) Unexpose(p netip.Prefix) error {
	c.exposing.Lock()
	defer c.exposing.Unlock()
	list := c.Exposed()
	at := slices.Index(list, p)
	if at < 0 {
		return errdefs.NotFound("%s is not exposed by this host", p)
	}
	if err := c.setExposed(slices.Delete(list, at, at+1)); err != nil {
		return err
	}
	c.Table().Drop(overlay.RouteKey(p))
	c.applyRoutes()
	return nil
}

// exposeAgain claims what this host exposes and the backend does not have, and takes back what an earlier life of it
// has there.
func (c *Cluster) exposeAgain(t *table.Table) {
	c.exposing.Lock()
	defer c.exposing.Unlock()
	own, list := c.Identity().ID, c.Exposed()
	have := map[netip.Prefix]bool{}
	for _, r := range t.Routes() {
		have[r.Prefix] = true
		if r.Host == own && !slices.Contains(list, r.Prefix) {
			t.Drop(overlay.RouteKey(r.Prefix))
		}
	}
	for _, p := range list {
		if have[p] {
			continue
		}
		if err := c.claimRoute(c.ctx, t, p); err != nil {
			c.log.Warn("a subnet is not exposed to other hosts", "subnet", p, "error", err)
		}
	}
}

// applyRoutes brings all running networks in line with what this host and others expose.
func (c *Cluster) applyRoutes() {
	for id := range c.joinedNetworks() {
		c.applyRoutesTo(id)
	}
}

func (c *Cluster) applyRoutesTo(id string) {
	j := c.joinedNetworks()[id]
	if j == nil {
		return
	}
	var exposed []netip.Prefix
	var others []fabric.Via
	own := c.Identity().ID
	for _, r := range c.routes() {
		switch {
		case r.Host == own && r.Unused == "":
			exposed = append(exposed, r.Prefix)
		case r.Host != own && (r.Unused == "" || r.Unused == routeDown):
			others = append(others, fabric.Via{Prefix: r.Prefix, Host: r.Host, Down: r.Unused == routeDown})
		}
	}
	j.link.SetVia(exposed, others)
	if len(others) == 0 {
		j.engine.SetRouter(nil)
	} else {
		j.engine.SetRouter(j.link.SendVia)
	}
}

// RouteTo is the subnet behind another host that packets to an address go to, or would if the host were heard of.
func (c *Cluster) RouteTo(a netip.Addr) (RouteStatus, bool) {
	own := c.Identity().ID
	for _, r := range c.routes() {
		if r.Prefix.Contains(a) && r.Host != own && (r.Unused == "" || r.Unused == routeDown) {
			return r, true
		}
	}
	return RouteStatus{}, false
}

// Why a subnet is not used.
const (
	routeDown     = "the host is not heard of"
	routeRefused  = "this host does not accept it (--cluster-accept-routes)"
	routeForeign  = "another host had exposed a subnet that overlaps it"
	routeNetwork  = "it overlaps a network of the cluster"
	routeHosts    = "hosts of the cluster are in it"
	routeTooMany  = "too many subnets are accepted"
	routeNotGiven = "this host does not expose it any more"
)

// routes are the subnets behind hosts, with what this host makes of them. All hosts that accept the same decide the
// same.
func (c *Cluster) routes() []RouteStatus {
	t, own, exposed := c.Table(), c.Identity().ID, c.Exposed()
	pools, hosts := t.Pools(), t.Hosts()
	var list []RouteStatus
	used := 0
	for _, r := range t.Routes() {
		s := RouteStatus{Prefix: r.Prefix, Host: r.Host}
		switch {
		case r.Host == own && !slices.Contains(exposed, r.Prefix):
			s.Unused = routeNotGiven
		case slices.ContainsFunc(pools, r.Prefix.Overlaps):
			s.Unused = routeNetwork
		case r.Host == own:
		case !c.accepts(r.Route):
			s.Unused = routeRefused
		case slices.ContainsFunc(hosts, func(h table.HostView) bool { return isIn(h, r.Prefix) }):
			s.Unused = routeHosts
		case slices.ContainsFunc(list, func(o RouteStatus) bool {
			return o.Host != r.Host && o.Prefix.Overlaps(r.Prefix) && (o.Unused == "" || o.Unused == routeDown)
		}):
			s.Unused = routeForeign
		case used == maxVia:
			s.Unused = routeTooMany
		case r.Down:
			s.Unused = routeDown
		}
		if s.Unused == "" || s.Unused == routeDown {
			used++
		}
		list = append(list, s)
	}
	return list
}

// isIn says whether a host of the cluster is reached at an address of a subnet: what goes to it would go through
// itself.
func isIn(h table.HostView, p netip.Prefix) bool {
	return slices.ContainsFunc(h.Addrs, func(a netip.AddrPort) bool { return p.Contains(a.Addr()) })
}

func (c *Cluster) accepts(r overlay.Route) bool {
	return slices.ContainsFunc(c.cfg.AcceptRoutes, func(a AcceptedRoute) bool {
		return a.Prefix.Bits() <= r.Prefix.Bits() && a.Prefix.Contains(r.Prefix.Addr()) &&
			strings.HasPrefix(string(r.Host), a.Host)
	})
}

// tellOverlaps tells of subnets that are accepted and overlap another host's, once.
func (c *Cluster) tellOverlaps() {
	now := map[RouteStatus]bool{}
	for _, r := range c.routes() {
		if r.Unused == routeForeign {
			now[r] = true
		}
	}
	c.mu.Lock()
	before := c.mu.overlaps
	c.mu.overlaps = now
	c.mu.Unlock()
	for r := range now {
		if !before[r] {
			c.event("conflict", map[string]string{"key": overlay.RouteKey(r.Prefix), "host": string(r.Host)})
		}
	}
}
