package daemon

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/network"
	vswitch "github.com/usernet/usernet/switch"
)

// predict says what becomes of packets to t.dst.
func (t *trace) predict(ctx context.Context) (err error) {
	if t.route, err = t.lookUp(ctx); err != nil {
		return err
	}
	switch {
	case t.route == nil:
		remedy := ""
		if t.dst.Addr().Is6() && !slices.ContainsFunc(t.c.Endpoints,
			func(e *network.Endpoint) bool { return e.IPv6.IsValid() }) {
			remedy = "a network with --ipv6: none of the container's has it"
		}
		t.end("route", api.TraceUnreachable, "the container has no route to "+t.dst.Addr().String(), remedy)
		return nil
	case t.route.Local:
		t.end("route", api.TracePasses, "the address is the container's own: it stays in the container",
			t.loopbackRemedy())
		return nil
	}
	t.step("route", t.route.String())
	e, a := t.leavesBy()
	if a == nil {
		t.end("route", api.TracePasses, "usernet has nothing to do with the interface "+t.route.Interface, "")
		return nil
	}
	next := t.dst.Addr()
	if t.route.Via.IsValid() {
		next = t.route.Via
	}
	mac, to := a.Network().Station(next)
	switch {
	case mac == nil:
		t.elsewhere(e, a, next)
	case to != nil:
		t.toNeighbor(a, to, mac)
	default:
		t.throughGateway(e, a, mac)
	}
	return nil
}

// loopbackRemedy says where a published port is that somebody looks for at the container's own loopback.
func (t *trace) loopbackRemedy() string {
	p := t.publishedAt(t.dst)
	if p == nil || p.c.ID == t.c.ID || !p.Host.Addr().IsUnspecified() {
		return ""
	}
	return fmt.Sprintf("host.docker.internal:%d: the host has published %s at that port", t.dst.Port(), p)
}

// leavesBy is the endpoint by which packets leave the container; nil: it is none of usernet's interfaces.
func (t *trace) leavesBy() (*network.Endpoint, *engine.Attachment) {
	for _, e := range t.c.Endpoints {
		b := t.d.bridge(e.NetworkID)
		if e.Interface != t.route.Interface || b == nil {
			continue
		}
		for _, a := range b.Attachments() {
			if a.ID() == t.c.ID {
				return e, a
			}
		}
	}
	return nil, nil
}

// crosses says whether the switch lets packets to a station pass.
func (t *trace) crosses(a *engine.Attachment, mac net.HardwareAddr, whose string) bool {
	d := a.Deliver(mac, t.route.Source, t.proto(), t.dst)
	on := "network " + a.Network().Name()
	if d.Passes {
		t.step("switch", fmt.Sprintf("%s: the port guard lets %s pass, and it goes to %s", on, t.route.Source, whose))
		return true
	}
	text := fmt.Sprintf("%s drops it (%s)", on, d.Reason)
	remedy := "see `usernet network inspect --verbose " + a.Network().Name() + "`"
	switch {
	case d.Rule != "":
		text = fmt.Sprintf("the policy of %s lets no packet pass to %s: %s", on, whose, d.Rule)
		remedy = "usernet network policy " + a.Network().Name() + " RULE...: it shows and changes the rules"
	case d.Reason == vswitch.DropOtherVLAN.String():
		text, remedy = t.otherVLAN(a, mac, whose)
	case d.Reason == vswitch.DropIsolated.String():
		text = fmt.Sprintf("%s keeps its containers apart, and no link opens this port of %s", on, whose)
		remedy = "--link on the default bridge, a port that the other container exposes; or another network without isolation"
	}
	t.end("switch", api.TraceUnreachable, text, remedy)
	return false
}

// otherVLAN says which VLANs two containers of a network are in, and how they get into one.
func (t *trace) otherVLAN(a *engine.Attachment, mac net.HardwareAddr, whose string) (text, remedy string) {
	vlan := func(of *engine.Attachment) string {
		if of == nil || of.VLAN() == 0 {
			return "none"
		}
		return fmt.Sprint(of.VLAN())
	}
	n := a.Network()
	var to *engine.Attachment
	for _, b := range n.Attachments() {
		if bytes.Equal(b.MAC(), mac) {
			to = b
		}
	}
	text = fmt.Sprintf("%s is in another VLAN of network %s: this container is in %s, and that one in %s", whose, n.Name(),
		vlan(a), vlan(to))
	remedy = fmt.Sprintf("`usernet network disconnect %[1]s %[2]s`, and `usernet network connect", n.Name(), a.Name())
	if to != nil && to.VLAN() != 0 {
		remedy += " --vlan " + vlan(to)
	}
	return text, remedy + fmt.Sprintf(" %s %s`", n.Name(), a.Name())
}

// toNeighbor is about another container of this host on the same network.
func (t *trace) toNeighbor(a, to *engine.Attachment, mac net.HardwareAddr) {
	kind, way := "container ", "the interface of container "
	if c, err := t.d.model.Container(to.ID()); err == nil && c.IsVM() {
		kind, way = "virtual machine ", "the socket of virtual machine "
	}
	if t.crosses(a, mac, kind+to.Name()) {
		t.end("peer", api.TracePasses, "the frame is written to "+way+to.Name()+
			": no gateway and no egress policy is on the way; whether something listens is its own matter", "")
	}
}

// elsewhere is about an address that nobody on this host has.
func (t *trace) elsewhere(e *network.Endpoint, a *engine.Attachment, next netip.Addr) {
	n := t.d.networkByID(e.NetworkID)
	if n != nil && n.IsDirect() {
		t.end("peer", api.TracePasses, "the network is a physical one: frames go out at its uplink, and who has "+
			next.String()+" answers there", "")
		return
	}
	if t.d.member != nil && n != nil {
		for _, o := range t.d.member.Elsewhere(n.ID) {
			if slices.Contains(o.Addrs, next) {
				t.toOtherHost(a, n, o)
				return
			}
		}
	}
	if n != nil && t.d.flannel != nil {
		if s := t.d.flannel.Status(n.ID); s != nil && !s.Subnet.Contains(next) {
			t.toNode(a, s, next)
			return
		}
	}
	if n != nil && n.HasPeers() {
		t.end("peer", api.TracePasses, "nobody on this host has "+next.String()+
			": frames go out to the network's peers, and who has it answers there", "")
		return
	}
	t.end("switch", api.TraceUnreachable, fmt.Sprintf("nobody on network %s has the address %s: nobody answers for it",
		a.Network().Name(), next), "")
}

// throughGateway is about what leaves the network.
func (t *trace) throughGateway(e *network.Endpoint, a *engine.Attachment, mac net.HardwareAddr) {
	if !t.crosses(a, mac, "the gateway") {
		return
	}
	n := a.Network()
	own, _ := n.Station(t.dst.Addr())
	switch {
	case own != nil && t.out.Proto == "icmp":
		t.end("gateway", api.TracePasses, "the gateway answers pings itself", "")
		return
	case t.dst.Port() == 53 && n.AnswersNames(t.dst.Addr()):
		t.end("gateway", api.TracePasses, "the network's own name service answers there", "")
		return
	}
	x := a.Explain(t.route.Source, t.proto(), t.dst, t.name)
	switch {
	case forwarder.Prohibited(x.Err):
		t.step("gateway", x.Way.String())
		t.end("policy", api.TraceProhibited, x.Policy.String(), x.Remedy)
		return
	case x.Err == forwarder.ErrNoAnswer:
		t.end("gateway", api.TraceNoAnswer, x.Way.String(), "")
		return
	case x.Err != nil:
		t.end("gateway", api.TraceUnreachable, x.Way.String(), "")
		return
	}
	policy := "not asked: no egress policy is about it"
	if x.Asked {
		policy = x.Policy.String()
	}
	if t.behindHost(t.d.networkByID(e.NetworkID), policy) {
		return
	}
	t.step("gateway", x.Way.String())
	t.step("policy", policy)
	t.byHost(a, x)
}

// byHost is about the host's side.
func (t *trace) byHost(a *engine.Attachment, x engine.Explanation) {
	ping4, ping6 := forwarder.PingAvailable()
	switch {
	case x.SourceErr != nil:
		t.end("host", api.TraceUnreachable, fmt.Sprintf("the host cannot send to %s: %v", x.Target.Addr(),
			x.SourceErr), "")
		return
	case x.Limit != "":
		t.end("host", api.TraceNoAnswer, "the container has reached a limit ("+x.Limit+"): see `usernet info`",
			"fewer at once, or serve with a higher limit")
		return
	case t.out.Proto == "icmp" && !(ping4 && t.dst.Addr().Is4() || ping6 && t.dst.Addr().Is6()):
		t.end("host", api.TraceNoAnswer, "this user may open no ping sockets", pingHint)
		return
	}
	text := fmt.Sprintf("a socket of the host, from %s to %s", x.Source, addressOf(x.Target))
	if x.Interface != "" {
		text += ", by interface " + x.Interface
	}
	t.step("host", text)
	if t.published = t.publishedAt(x.Target); t.published != nil {
		t.step("host", "that port is published for "+t.published.String())
	}
	switch {
	case t.out.Proto != "tcp":
		t.step("path", "datagrams go by the container's interface and the gateway")
	case x.Bypass:
		t.step("path", "the bypass: a socket in the container's namespace completes the connection, and the kernel moves the bytes")
	default:
		t.step("path", "the container's interface and the gateway's TCP, not the bypass: "+x.Through)
	}
	t.from = func(ctx context.Context) error { return a.Network().DialHost(ctx, t.route.Source, x.Target) }
	t.out.Predicted = api.TraceOutcome{Kind: api.TracePasses,
		Text: "usernet lets it through; the rest is the destination's"}
}

// addressOf is an address with its port, where there is one.
func addressOf(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}
