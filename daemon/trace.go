package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	mdns "github.com/miekg/dns"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// trace is one request of api.Backend.Trace while it is answered.
//
// The decisions that it tells are made by the code that makes them for packets: the name service, the kernel of the
// sandbox (routes), the switch with its port guard, the forwarder and the egress policy. It has no rules of its own.
type trace struct {
	d    *Daemon
	c    *network.Container // whose network it is
	q    api.TraceRequest
	out  api.Trace
	name string // of the destination, in lower case without a dot at the end; "": it is an address
	dst  netip.AddrPort
	// asked is the name as the server of names is asked for it, and question the type; both for the attempt.
	asked    string
	question uint16
	route    *sandbox.TriedRoute
	// published is the published port that the destination leads to; nil: none.
	published *publishedPort
	// from connects from the host to where the destination leads; nil: the host has no part in it.
	from func(context.Context) error
}

// Trace implements api.Backend.
func (d *Daemon) Trace(ctx context.Context, q api.TraceRequest) (api.Trace, error) {
	c, err := d.model.Container(q.Container)
	if err != nil {
		return api.Trace{}, err
	}
	if c.Status != network.Running {
		return api.Trace{}, errdefs.Conflict("container %s is not running: there is no network to look at", c.Name)
	}
	t := &trace{d: d, c: c, q: q}
	t.out = api.Trace{Container: c.Name, Destination: q.Destination, Steps: []api.TraceStep{}}
	if err := t.parse(); err != nil {
		return api.Trace{}, err
	}
	if owner, ok := strings.CutPrefix(c.NetworkMode, "container:"); ok {
		if t.c, err = d.model.Container(owner); err != nil || t.c.Status != network.Running {
			return api.Trace{}, errdefs.Conflict("the container whose network %s shares has ended", c.Name)
		}
		t.step("network", "it shares the network of container "+t.c.Name)
	}
	if t.c.NetworkMode == network.HostName {
		t.end("network", api.TracePasses, "it uses the host's network (--network host): usernet decides nothing there", "")
		if !q.DryRun {
			t.untried("nothing is tried in the host's own network: try it on the host")
		}
		return t.out, nil
	}
	ctx, cancel := context.WithTimeout(ctx, agentTimeout+4*q.Timeout)
	defer cancel()
	if t.resolve(ctx) {
		if err := t.predict(ctx); err != nil {
			return api.Trace{}, err
		}
	}
	if !q.DryRun {
		if err := t.try(ctx); err != nil {
			return api.Trace{}, err
		}
	}
	return t.out, nil
}

// parse reads the destination.
func (t *trace) parse() error {
	text, port := t.q.Destination, ""
	bad := func(why string) error {
		return errdefs.Invalid("destination %q: %s; give ADDRESS, NAME, ADDRESS:PORT, NAME:PORT or [IPV6]:PORT",
			t.q.Destination, why)
	}
	bare := text
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		bare = text[1 : len(text)-1]
	}
	if a, err := netip.ParseAddr(bare); err == nil {
		t.dst = netip.AddrPortFrom(a.Unmap().WithZone(""), 0)
	} else {
		host := text
		if strings.Contains(text, ":") {
			if host, port, err = net.SplitHostPort(text); err != nil {
				return bad("it is no address or name with a port")
			}
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if port != "" && (err != nil || n == 0) || strings.HasSuffix(text, ":") {
			return bad("the port is not a number from 1 to 65535")
		}
		a, err := netip.ParseAddr(host)
		if err != nil {
			if _, ok := mdns.IsDomainName(host); !ok || host == "" || strings.ContainsAny(host, " /:") {
				return bad("it is neither an address nor a name")
			}
			t.name = strings.ToLower(strings.TrimSuffix(host, "."))
		}
		t.dst = netip.AddrPortFrom(a.Unmap().WithZone(""), uint16(n))
	}
	switch {
	case t.q.UDP && t.dst.Port() == 0:
		return bad("a datagram needs a port")
	case t.q.UDP:
		t.out.Proto = "udp"
	case t.dst.Port() != 0:
		t.out.Proto = "tcp"
	default:
		t.out.Proto = "icmp"
	}
	return nil
}

// proto is the number of the protocol in IP headers.
func (t *trace) proto() uint8 {
	switch {
	case t.out.Proto == "tcp":
		return packet.ProtoTCP
	case t.out.Proto == "udp":
		return packet.ProtoUDP
	case t.dst.Addr().Is6():
		return packet.ProtoICMPv6
	}
	return packet.ProtoICMP
}

// step tells one decision.
func (t *trace) step(stage, text string) {
	t.out.Steps = append(t.out.Steps, api.TraceStep{Stage: stage, Text: text})
}

// end tells the last one, and how it ends.
func (t *trace) end(stage string, kind api.TraceKind, text, remedy string) {
	t.out.Steps = append(t.out.Steps, api.TraceStep{
		Stage: stage, Text: text, Stops: kind != api.TracePasses, Remedy: remedy,
	})
	t.out.Predicted = api.TraceOutcome{Kind: kind, Text: text}
}

// resolve finds the address of a name as the container would. False: it has none.
func (t *trace) resolve(ctx context.Context) bool {
	if t.name == "" {
		t.out.Address = t.dst
		return true
	}
	names := []string{t.name}
	if !strings.HasSuffix(strings.Split(t.q.Destination, ":")[0], ".") {
		for _, domain := range t.d.searchDomains(t.c) {
			names = append(names, t.name+"."+strings.ToLower(strings.Trim(domain, ".")))
		}
	}
	var last string
	for _, name := range names {
		for _, qtype := range []uint16{mdns.TypeA, mdns.TypeAAAA} {
			r, err := t.d.dns.Query(ctx, t.d.dnsClient(t.c.ID), name, qtype)
			if err != nil {
				t.end("names", api.TraceUnresolved, name+": "+err.Error(), "")
				return false
			}
			if t.asked == "" {
				t.asked, t.question = name, qtype
			}
			if addrs := addressesIn(r.Answer); len(addrs) > 0 {
				t.asked, t.question, t.name = name, qtype, name
				t.dst = netip.AddrPortFrom(addrs[0], t.dst.Port())
				t.out.Address = t.dst
				t.step("names", fmt.Sprintf("%s is %s, %s", name, join(addrs), sourceText(r.Source)))
				return true
			}
			last = fmt.Sprintf("%s has no address: %s, %s", name, mdns.RcodeToString[r.Rcode], sourceText(r.Source))
		}
	}
	t.end("names", api.TraceUnresolved, last, t.nameRemedy(last))
	return false
}

// sourceText says where an answer came from.
func sourceText(source string) string {
	switch source {
	case "zone":
		return "from the names of its networks"
	case "cache":
		return "from the cache of an earlier answer"
	case "egress policy":
		return "as the egress policy does not let it be asked for outside"
	}
	return "from " + source
}

// nameRemedy says what would give a name an address.
func (t *trace) nameRemedy(why string) string {
	if strings.HasSuffix(why, sourceText("egress policy")) {
		return "--allow-egress " + t.name + ", or --allow-egress dns for all names"
	}
	o, err := t.d.model.Container(t.name)
	if err != nil {
		return ""
	}
	if o.Status != network.Running {
		return "`usernet start " + o.Name + "`: the container of that name does not run"
	}
	for _, e := range o.Endpoints {
		if n := t.d.networkByID(e.NetworkID); n != nil && !n.IsPredefined() {
			return "`usernet network connect " + n.Name + " " + t.c.Name +
				"`: the container of that name is on that network"
		}
	}
	return "put both containers on a network that was made by `usernet network create`: the predefined ones have no names"
}

// addressesIn are the addresses in an answer.
func addressesIn(answer []mdns.RR) (list []netip.Addr) {
	for _, rr := range answer {
		var ip net.IP
		switch rr := rr.(type) {
		case *mdns.A:
			ip = rr.A
		case *mdns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			list = append(list, a.Unmap())
		}
	}
	return list
}

func join(addrs []netip.Addr) string {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}

// lookUp asks the sandbox's kernel for the route; nil and no error: it has none.
func (t *trace) lookUp(ctx context.Context) (*sandbox.TriedRoute, error) {
	if t.c.IsVM() {
		return t.modelRoute(), nil
	}
	done, err := t.enter(ctx, sandbox.Trial{Dst: t.dst})
	if err != nil {
		return nil, err
	}
	return done[0].Route, nil
}

// enter tries ways from the sandbox's own namespace.
func (t *trace) enter(ctx context.Context, ways ...sandbox.Trial) ([]sandbox.Tried, error) {
	reply, err := t.d.sandboxes.Configure(ctx, t.d.target(t.c), sandbox.Request{Try: ways})
	switch {
	case err != nil:
		return nil, errdefs.Internal("network of container %s: %w", t.c.Name, err)
	case len(reply.Tried) != len(ways):
		return nil, errdefs.Internal("network of container %s: the sandbox has answered something else", t.c.Name)
	}
	return reply.Tried, nil
}

// modelRoute is the route that a virtual machine was told.
func (t *trace) modelRoute() *sandbox.TriedRoute {
	a := t.dst.Addr()
	for _, e := range t.c.Endpoints {
		for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
			if p.IsValid() && p.Contains(a) {
				return &sandbox.TriedRoute{Interface: e.Interface, Source: p.Addr()}
			}
		}
	}
	e4, e6 := network.DefaultRouteEndpoint(t.c, t.d.networkByID)
	switch {
	case a.Is4() && e4 != nil && e4.Gateway4.IsValid():
		return &sandbox.TriedRoute{Interface: e4.Interface, Via: e4.Gateway4, Source: e4.IPv4.Addr()}
	case a.Is6() && e6 != nil && e6.Gateway6.IsValid():
		return &sandbox.TriedRoute{Interface: e6.Interface, Via: e6.Gateway6, Source: e6.IPv6.Addr()}
	}
	return nil
}

// A publishedPort is a port of the host, and the container that has published it.
type publishedPort struct {
	api.Published
	c *network.Container
}

// publishedAt is the published port that an address of the host leads to; nil: none does.
func (t *trace) publishedAt(at netip.AddrPort) *publishedPort {
	for _, c := range t.d.model.Containers() {
		list, err := t.d.Published(c.ID)
		if err != nil {
			continue
		}
		for _, p := range list {
			if p.Host.Port() == at.Port() && string(p.Proto) == t.out.Proto &&
				(p.Host.Addr().IsUnspecified() || p.Host.Addr() == at.Addr()) {
				return &publishedPort{p, c}
			}
		}
	}
	return nil
}

// String says whose it is.
func (p *publishedPort) String() string {
	return fmt.Sprintf("port %d of container %s", p.Port, p.c.Name)
}
