package daemon

import (
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
)

// relayed is the path by way of another host, as `usernet cluster ls` has it.
const relayed = "relayed"

// toOtherHost is about a container of another host: which host, and how frames go there.
func (t *trace) toOtherHost(a *engine.Attachment, n *network.Network, o overlay.Elsewhere) {
	host := string(o.Host)
	var path api.ClusterHost
	if c, err := t.d.Cluster(); err == nil {
		for _, h := range c.Hosts {
			if h.ID == string(o.Host) {
				host, path = h.Name, h
			}
		}
		for _, h := range c.Hosts {
			if path.Path == relayed && strings.HasPrefix(h.ID, path.Via) {
				path.Via = h.Name
			}
		}
	}
	if o.Down {
		t.end("peer", api.TraceNoAnswer, "container "+o.Name+" is on host "+host+", which is not heard of",
			"see `usernet cluster ls`")
		return
	}
	if !t.crosses(a, net.HardwareAddr(o.MAC[:]), "container "+o.Name+" of host "+host) {
		return
	}
	t.step("path", frames(n)+", "+pathText(path))
	t.end("peer", api.TracePasses, "host "+host+" hands the frame to its container "+o.Name, "")
}

// frames says how a network's frames are carried between hosts.
func frames(n *network.Network) string {
	s := n.Settings()
	if s.Encrypted {
		return fmt.Sprintf("VXLAN (VNI %d), sealed between the hosts", s.VNI)
	}
	return fmt.Sprintf("VXLAN (VNI %d), readable on the way", s.VNI)
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
