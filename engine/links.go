package engine

import (
	vswitch "github.com/usernet/usernet/switch"
)

// LinkRule lets the attachment From open connections to ports of To, on a network whose attachments are isolated.
type LinkRule struct {
	From, To string // ids
	Ports    []vswitch.PortRange
}

// SetLinks replaces the rules. Those about who is not attached are left out: call it again when somebody has come.
func (n *Network) SetLinks(rules []LinkRule) {
	n.attached.RLock()
	defer n.attached.RUnlock()
	var links []vswitch.Link
	for _, r := range rules {
		from, to := n.attached.byID[r.From], n.attached.byID[r.To]
		if from != nil && to != nil && from != to {
			links = append(links, vswitch.Link{From: from.port, To: to.port, Ports: r.Ports})
		}
	}
	n.sw.SetLinks(links)
}
