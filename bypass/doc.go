// Package bypass carries TCP past a container's TAP: between a socket that was made inside the container's network
// namespace and one of the host's, so that the kernel moves the data and no TCP stack in userspace is between.
//
// # The central idea
//
// A socket belongs to the namespace in which socket(2) was called, wherever it is used. A Factory, a process in the
// sandbox, makes sockets there and sends them out; a Pool keeps some ready for the daemon, which connects them to the
// container. They are transparent (ip(7), IP_TRANSPARENT), so that they take any client's or server's name. What the
// container sends to that name has to come back to the sandbox instead of leaving by the TAP: packets of these sockets
// are marked, and marked packets are routed to the loopback interface (package fwmark).
//
// Inbound connections, to published ports, need no more than that: what the container's listener accepts takes over the
// mark of the SYN (net.ipv4.tcp_fwmark_accept).
//
// # Outbound connections
//
// The container's own socket has no mark. Its SYN leaves by the TAP, and the gateway does not answer it. When the
// daemon has connected to the destination, a socket of the pool, the proxy, connects to the container in the
// destination's name. The two SYNs have crossed: a simultaneous open (RFC 9293, 3.5), after which the container takes
// the proxy for the destination.
//
//	container's socket           proxy (mark 0x75736e75)     daemon, host
//	  | SYN ------------------------> TAP --------------------> decides, connects to the destination
//	  |                              | <----------------------- connects to the container
//	  | <---------------------- SYN  |   allowed: the connection is in syn_sent
//	  | SYN,ACK ------------------>  |   marked by the rules: comes back by lo
//	  | <------------------ SYN,ACK  |
//	  | <=========== data =========> | <======= splice =======> the destination
//
// The rules mark what the container sends on such connections. Each set holds connections as the container sees them,
// SELF below, which are PEER in packets of the proxy. This is how a connection moves between them:
//
//	           container's SYN         proxy's SYN            container's SYN,ACK
//	(nothing) ----------------> syn_sent -----------> time_wait ----------------> established
//	                                                   ^ ^                          |      |
//	                        FIN of the container, 24 h | | RST of either, FIN       | FIN of the proxy
//	                                   +---------------+ +----- fin_wait <----------+
//	                                   +-------------------------------- established
//
// The proxy's SYN is rejected unless the container's SYN for the same connection is in the set syn_sent. It is not in
// there where the container's own rules changed the addresses of its SYN on the way out, or where the SYN came from a
// namespace behind the container.
//
// For IPv4 (for IPv6 it is the same) these are the rules as nft(8) lists them, but that SELF and PEER stand for the
// connection, in registers, and flags are written as for a known protocol. A test holds them against what is loaded.
//
//	table ip usernet {
//		set syn_sent {
//			type ipv4_addr . inet_service . ipv4_addr . inet_service
//			size 262144
//			flags dynamic,timeout
//			timeout 20s
//		}
//
//		set established {
//			type ipv4_addr . inet_service . ipv4_addr . inet_service
//			size 262144
//			flags dynamic
//		}
//
//		set fin_wait {
//			type ipv4_addr . inet_service . ipv4_addr . inet_service
//			size 262144
//			flags dynamic
//		}
//
//		set time_wait {
//			type ipv4_addr . inet_service . ipv4_addr . inet_service
//			size 262144
//			flags dynamic,timeout
//			timeout 20s
//		}
//
//		chain out {
//			type route hook output priority mangle; policy accept;
//			meta l4proto != tcp accept
//			meta mark 0x75736e75 goto from_proxy
//			meta mark 0x75736e74 accept
//			tcp flags syn / syn,ack delete @established { SELF } delete @fin_wait { SELF } \
//				delete @time_wait { SELF } update @syn_sent { SELF timeout 20s } accept
//			tcp flags syn,ack / syn,ack SELF @time_wait update @established { SELF }
//			tcp flags fin / fin,rst SELF @established update @time_wait { SELF timeout 1d } \
//				delete @established { SELF }
//			tcp flags & (fin | rst) != 0 SELF @fin_wait update @time_wait { SELF timeout 20s } \
//				delete @fin_wait { SELF }
//			tcp flags & rst != 0 SELF @established update @time_wait { SELF timeout 20s } \
//				delete @established { SELF }
//			tcp flags & rst != 0 SELF @time_wait update @time_wait { SELF timeout 20s }
//			SELF @established meta mark set 0x75736e75 accept
//			SELF @fin_wait meta mark set 0x75736e75 accept
//			SELF @time_wait meta mark set 0x75736e75
//		}
//
//		chain from_proxy {
//			tcp flags syn / syn,ack delete @syn_sent { PEER } update @time_wait { PEER timeout 20s } accept
//			tcp flags & rst != 0 delete @established { PEER } delete @fin_wait { PEER } \
//				delete @time_wait { PEER } delete @established { SELF } delete @fin_wait { SELF } \
//				delete @time_wait { SELF } accept
//			tcp flags & fin != 0 PEER @established update @fin_wait { PEER } delete @established { PEER } \
//				accept
//			PEER @established accept
//			PEER @fin_wait accept
//			tcp flags & fin == 0 PEER @time_wait accept
//			update @time_wait { PEER timeout 20s }
//		}
//
//		chain reject_unsolicited {
//			type filter hook output priority raw; policy accept;
//			meta mark 0x75736e75 tcp flags syn / syn,ack PEER != @syn_sent reject with tcp reset
//		}
//	}
//
// A container may remove or change these rules. Its packets then leave by the TAP again, and the gateway resets the
// connections, which it does not know. So the container has broken its own connections, and reached nothing.
//
// # Where it gives way
//
// Packets on the loopback interface do not pass what the container has set up for its other interfaces: packet filters,
// translation of addresses (service meshes, Docker inside), queues. Where a container has any of these, no sockets are
// made, and all its TCP takes the way through the TAP and the gateway (checkContainerRules). Before each connection the
// pool asks a Watch whether the rules have changed. Established connections go on.
//
// The daemon uses the package; the program of sandboxes plays Role. It never decides who may connect to what.
package bypass
