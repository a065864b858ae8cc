// Package autoconf gives addresses to guests that configure themselves: a DHCPv4 server (RFC 2131), a DHCPv6 server
// (RFC 8415) and router advertisements (RFC 4861), all on one switch port of a network.
//
// Containers that usernet starts or attaches are configured by an agent in their namespace and need none of this. It is
// for those without an agent: virtual machines, User Mode Linux, and namespaces whose owner runs a DHCP client.
//
//	srv, err := autoconf.New(autoconf.Config{Router: gatewayMAC, Subnet4: subnet, Router4: gateway, ...})
//	port, err := sw.Connect(vswitch.PortConfig{Name: "autoconf", MAC: srv.MAC(), Role: vswitch.Gateway}, srv)
//	srv.SetPort(port)
//	go srv.Run(ctx) // unsolicited router advertisements, until ctx ends
//
// The one idea: the server is a [vswitch.Device]. Requests are broadcast or multicast, so the switch brings them by
// itself, and the answer leaves as a frame before WriteFrame returns: no sockets, no goroutine for each request.
// Renewals that a DHCPv4 client sends to the gateway's own address do not arrive here; the listener there hands
// their payload to [Server.Renew].
//
// Everything is bounded: a lease belongs to a MAC address, there are as many as the pool has addresses, and solicited
// advertisements are limited in rate. A message that cannot be parsed is dropped.
package autoconf
