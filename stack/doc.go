// Package stack is a network's gateway: a gVisor netstack behind one port of the network's switch.
//
// # The central idea
//
// The netstack's interface takes packets for every destination and may send from every source. It does what is hard
// (ARP, neighbour discovery, reassembly, TCP) and knows no host: what containers send elsewhere goes to a Handler, and
// what the Handler has for them is sent in the name of its sender.
//
// Package engine makes a Gateway for each network; package forwarder is the Handler:
//
//	g, err := stack.New(stack.Config{MAC: mac, MTU: 1500, Addresses: prefixes, Switch: sw})
//	g.SetHandler(handler)                         // from here on containers reach the outside
//	c, err := g.DialTCP(ctx, client, container)   // in the client's name
//
// netstack's own types stay inside the package. What comes from containers is checked before netstack or a handler sees
// it, whatever the switch port has let through.
package stack
