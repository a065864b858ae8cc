// Package evpn makes networks part of an EVPN fabric (RFC 7432, RFC 8365): where endpoints of others are comes from BGP
// and is not learned from frames. A network has a VNI and route targets. Of the routes that other routers announce with
// one of its targets, those of type 3 say which VTEPs frames to all are copied to, and those of type 2 which MAC with
// which addresses is behind which VTEP. The network's own endpoints are announced likewise, each with its addresses.
//
//	set := evpn.New(log)
//	speaker, err := bgp.New(bgp.Config{..., Changed: set.Wake})
//	set.Start(speaker)
//	leave := set.Join(evpn.Config{ID: id, VNI: 42}, tell) // tell is called with what is known, now and after changes
//	set.SetContainer("c1", []evpn.Endpoint{{Network: id, MAC: mac, Addrs: addrs}})
//
// One goroutine makes everything anew after a change (a view of all routes for each network, the routes of its own
// endpoints), so that what is announced and what is used cannot disagree. mobility.go has what is done when a MAC is in
// two places.
package evpn
