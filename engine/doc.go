// Package engine is one network at run time: a switch, its gateway, the forwarder behind that, published ports, an
// egress policy for each attachment, and name service at the gateway's addresses.
//
// # The central idea
//
// A Network is told everything by its Config and by the calls that follow; it stores nothing, asks nobody, and knows
// neither containers nor namespaces. What is attached to it is whatever carries Ethernet frames behind a [Link]: a TAP
// in a container's namespace, a virtual machine's socket, a [Pipe] in this process.
//
//	n, err := engine.New(engine.Config{Name: "lab", Gateways: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}})
//	a, err := n.Attach(engine.AttachConfig{
//		ID:    "one",
//		MAC:   mac,
//		Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.2")},
//	}, link)
//	bound, err := n.Publish(ctx, a, engine.Publication{
//		Ports: []publish.Binding{{HostPort: 8080, Port: 80, Proto: publish.TCP}},
//	})
//	a.Detach()
//	n.Close()
//
// A frame goes from its link to the port's switch, and from there to another link or to the gateway; the gateway asks
// the Network whether the policy of the sender's attachment allows the destination, and gives the packet to the
// forwarder, which has a host socket for it. It needs no privileges: a host socket is what any program has.
//
// # Ownership
//
// The Network owns the links that were attached to it, and closes each when it is detached. It starts one goroutine for
// each link and two for each address at which names are served; Detach and Close wait for theirs.
//
// Package daemon keeps a Network for each network in use and the model in step. The package never reads a store, enters
// a namespace or prints.
package engine
