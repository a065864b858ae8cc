// Package dns answers the names of containers, and forwards all other questions to the host's resolvers.
//
// # The central idea
//
// A Server answers on any socket. Which client asks is known by the socket or the source address, never by what a
// message says; a Directory says which names that client may see. Those are answered here. Other questions go to a
// server outside, each from a socket of its own, unless the client's AllowQuery refuses them. Whatever a client or a
// server outside does, no other client waits for it: replies never block, and questions, connections and the cache
// are divided so that room stays for others.
//
//	s := dns.NewServer(dns.Config{Directory: table, Upstreams: hostsResolvers, CacheSize: 4096})
//	go s.ServePacket(udp, func(net.Addr) dns.Client { return dns.Client{ID: "c1", Forward: true} })
//	go s.ServeListener(tcp, ...)
//	s.Close()
//
// # The way of a question
//
//	serve.go     reads it from a socket, and writes the answer
//	answer.go    names of containers (zone.go), then the client's policy, then
//	forward.go   the cache (cache.go), a query for the same that is under way, or the servers one after another
//	exchange.go  one server: which form of the query it understands (abilities.go)
//	transport.go one query over UDP, TCP or TLS
//	filter.go    leaves addresses out of the answer that the client may not get
//
// The daemon makes one Server for all containers, the engine gives it the sockets. The package enters no namespace,
// and reads no file but resolv.conf.
package dns
