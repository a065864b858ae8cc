// Package policy decides where a container may connect to outside of its networks.
//
// # The central idea
//
// A decision is about an address, and people write names. So a Policy learns which addresses a container was given for
// which name, from the DNS answers that it got from usernet, and keeps each as long as the answer was good for. Asking is
// cheap, as it happens for each datagram: no memory, one lock that readers share.
//
//	p := policy.New(policy.Deny, rules)
//	p.Learn("deb.debian.org", addrs, time.Minute)  // what the container's resolver was told
//	if err := p.Decide(unix.IPPROTO_TCP, dst); err != nil { ... } // err says which rule
//
// A question for a name is itself a way out, as data can be written in names. So a Policy that denies lets only those be
// asked for that a rule is for (Asks), unless the rule "dns" opens all.
//
// The daemon makes one for each address of a container, asks it through the forwarder's Allow and the DNS
// server's, and teaches it from the DNS server. The package knows no packets and no sockets.
package policy
