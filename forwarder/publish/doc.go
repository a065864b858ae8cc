// Package publish binds ports on the host for containers.
//
// # The central idea
//
// A published port is an ordinary socket of the host's: a listener, or a UDP socket. A [Table] has all of a daemon's,
// with the sockets that a service manager or another daemon has passed for them; a [Publisher] binds those of one
// network, and hands what comes to them to its [Handler], package forwarder, which knows how to get into a container.
//
//	table := publish.NewTable()
//	p := publish.New(publish.Config{Table: table, Reactor: reactor, Handler: forwarder})
//	bound, err := p.Publish(ctx, in4, in6, []publish.Binding{{HostPort: 8080, Port: 80, Proto: publish.TCP}})
//	err = p.Unpublish(bound)
//
// All of what one Publish asks for is bound, or none of it. A port for all addresses of both families is one socket
// where the host has IPv6, which is half the descriptors.
//
// # A listener
//
//	         no descriptors are left         Stop
//	watched ------------------------> paused -----> stopped, which is final:
//	   ^ ^                              |     +---> what waits is the next daemon's
//	   | +------------------------------+     |
//	   |        after pauseTime               |
//	 bound ------------------ Stop -----------+
//
// The package copies no bytes and dials nobody. No lock is held while the Handler is called.
package publish
