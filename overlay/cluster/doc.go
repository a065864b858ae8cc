// Package cluster is a host's membership in a cluster: it joins the table of records (package table), the fabric that
// carries frames (package fabric) and a host's networks.
//
//	c, err := cluster.Open(cluster.Config{Dir: dir, Backend: open, Advertise: "eth0", Changed: f})
//	c.Start()
//	err = c.CreateNetwork(ctx, n)       // claims its name, subnets and number; all hosts see it then
//	addr, err := c.Reserve(ctx, n, pool, netip.Addr{}, endpointID)
//	c.SetContainer(id, endpoints)       // all hosts know its addresses and names then
//	err = c.Join(n, engine)             // frames flow to and from other hosts
//
// The central idea: what this host has is said once, by SetContainer and CreateNetwork, and all else (what others have,
// where their frames go, which addresses are free) is read from the replica. So nothing but CreateNetwork,
// RemoveNetwork and the claim of a new block of addresses waits for a backend; those are bounded by table.CallTimeout.
//
// The daemon calls it. It knows no containers but by what SetContainer says, and no API.
package cluster
