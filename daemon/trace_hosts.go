package daemon

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/flannel"
)

// relayed is the path by way of another host, as `usernet cluster ls` has it.
const relayed = "relayed"

// direct is a path without another host or a NAT on it.
const direct = "direct"

// toOtherHost is about a container of another host: which host, and how frames go there.
func (t *trace) toOtherHost(a *engine.Attachment, n *network.Network, o overlay.Elsewhere) {
	host, path := t.pathTo(string(o.Host))
	if o.Down {
		t.end("peer", api.TraceNoAnswer, "container "+o.Name+" is on host "+host+", which is not heard of",
			"see `usernet cluster ls`")
		return
	}
	if !t.crosses(a, net.HardwareAddr(o.MAC[:]), "container "+o.Name+" of host "+host) {
		return
	}
	if t.out.Proto == "tcp" && n.Settings().TCP == network.TCPSockets && t.d.cluster != nil {
		why := t.d.cluster.NoSockets(n.ID, t.route.Source, t.dst.Addr())
		if why == "" {
			t.step("path", fromSocketToSocket(n, host))
			t.end("peer", api.TracePasses, "host "+host+" connects to its container "+o.Name+
				" in the name of this one", "")
			return
		}
		t.step("path", "in frames, not from socket to socket: "+why)
	}
	t.step("path", frames(n)+", "+pathText(path))
	t.end("peer", api.TracePasses, "host "+host+" hands the frame to its container "+o.Name, "")
}

// fromSocketToSocket says how connections go on a network with usernet.tcp=sockets.
func fromSocketToSocket(n *network.Network, host string) string {
	how := "TCP, readable on the way"
	if n.Settings().Encrypted {
		how = "TLS 1.3"
	}
	return "from socket to socket: one connection between the hosts (" + how + "); in frames where host " + host +
		" refuses it, or there is no socket at hand"
}

// pathTo is the name of a host, and the path to it. Without a cluster the host is one of Docker's, at the address that
// is its id.
func (t *trace) pathTo(id string) (name string, path api.ClusterHost) {
	c, err := t.d.Cluster()
	if err != nil {
		return id, api.ClusterHost{Path: direct, Via: id, Answers: true}
	}
	name = id
	for _, h := range c.Hosts {
		if h.ID == id {
			name, path = h.Name, h
		}
	}
	for _, h := range c.Hosts {
		if path.Path == relayed && strings.HasPrefix(h.ID, path.Via) {
			path.Via = h.Name
		}
	}
	return name, path
}

// behindHost says what becomes of packets to a subnet that another host has exposed; false: the destination is in none.
func (t *trace) behindHost(n *network.Network, policy string) bool {
	if t.d.cluster == nil || n == nil || !n.SpansHosts() {
		return false
	}
	r, is := t.d.cluster.RouteTo(t.dst.Addr())
	if !is {
		return false
	}
	host, path := t.pathTo(string(r.Host))
	t.step("gateway", fmt.Sprintf("%s is behind host %s, which has exposed it", r.Prefix, host))
	t.step("policy", policy)
	if r.Unused != "" {
		t.end("path", api.TraceUnreachable, "host "+host+" is not used: "+r.Unused, "see `usernet cluster ls`")
		return true
	}
	t.step("path", frames(n)+", "+pathText(path))
	t.end("peer", api.TracePasses, "the gateway on host "+host+" connects there, by sockets of that host", "")
	return true
}

// toNode is about an address of another node of flannel's.
func (t *trace) toNode(a *engine.Attachment, s *flannel.Status, next netip.Addr) {
	for subnet, node := range s.Nodes {
		if p, err := netip.ParsePrefix(subnet); err == nil && p.Contains(next) {
			t.end("peer", api.TracePasses, fmt.Sprintf(
				"the subnet %s is of flannel's node %s, which passes packets on to its containers", p, node), "")
			return
		}
	}
	t.end("switch", api.TraceUnreachable, fmt.Sprintf("no node of flannel's that network %s knows has a subnet with %s",
		a.Network().Name(), next), "`usernet network inspect --verbose "+a.Network().Name()+"` shows the nodes")
}

// frames says how a network's frames are carried between hosts.
func frames(n *network.Network) string {
	s, text := n.Settings(), "VXLAN"
	if vni := cmp.Or(n.VNI, s.VNI); vni != 0 { // drawn, or asked for
		text += fmt.Sprintf(" (VNI %d)", vni)
	}
	if s.Encrypted {
		return text + ", sealed between the hosts"
	}
	return text + ", readable on the way"
}

// pathText says which way they go to a host.
func pathText(h api.ClusterHost) string {
	text := ""
	switch h.Path {
	case "":
		return "by a way that is found with the first frame"
	case relayed:
		text = "relayed by host " + h.Via
	case "punched":
		text = "to " + h.Via + " through the hosts' NATs"
	case "tcp":
		text = "over TCP to " + h.Via + ", since datagrams do not get through"
	default:
		text = "straight to " + h.Via
	}
	if h.PathMTU > 0 {
		text += fmt.Sprintf(", IP packets of up to %d bytes", h.PathMTU)
	}
	if h.RTT > 0 {
		text += fmt.Sprintf(", %v there and back", h.RTT.Round(100*time.Microsecond))
	}
	if !h.Answers {
		text += "; the host does not answer there now"
	}
	return text
}
