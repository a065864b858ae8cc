// Package policy decides where a container may connect to outside of its networks, and which names it may ask for.
//
// # The central idea
//
// A decision is about an address, and people write names. So a Policy notes which addresses a container was given for
// which name (Pin), out of the DNS answers that it got from usernet, and keeps each as long as the answer is valid.
// Deciding is cheap, as it happens for each datagram: no memory, and one lock that readers share.
//
//	p, err := policy.New(policy.Deny, rules)
//	p.Pin("deb.debian.org", addrs, time.Minute)            // the container's resolver got this answer
//	if err := p.Decide(unix.IPPROTO_TCP, dst); err != nil { ... } // err says which rule refuses
//
// A question for a name is itself a way out, as data can be written in names. So a Policy that denies lets only those
// names be asked for that a rule is for (AllowQuery), unless the rule "dns" opens all. An answer is a way in: a
// public name may have a private address, so that a program inside connects to a neighbour of the machine. A Policy
// with no-rebind refuses those (AllowAnswer).
//
// Package engine makes one for each attachment. The forwarder asks it before it connects, the DNS server before it
// asks and before it answers. The package knows no packets and no sockets, and starts no goroutine.
package policy
