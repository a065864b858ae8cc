package libnetwork

import (
	"net/netip"
)

// Keys of Docker's daemons. Those of networks are below keyRoot: libnetwork's version of its own records.
const (
	keyDocker = "docker"
	keyNodes  = "docker/nodes"
	keyRoot   = "docker/network/v1.0"

	keyNetworks  = keyRoot + "/network"
	keyEndpoints = keyRoot + "/endpoint"
	keyCounts    = keyRoot + "/endpoint_count"
	keyOverlay   = keyRoot + "/overlay/network"
	keyVNIs      = keyRoot + "/idm/vxlan-id"
	keyPools     = keyRoot + "/ipam/default/config/" + addressSpace
	keyAddresses = keyRoot + "/ipam/default/data/" + addressSpace
)

// addressSpace is that of all networks that span hosts.
const addressSpace = "GlobalDefault"

// firstVNI is the VNI of bit 0 of keyVNIs, and lastVNI that of the last one.
const (
	firstVNI = 256
	lastVNI  = 1<<24 - 1
)

func networkKey(id string) string             { return join(keyNetworks, id) }
func overlayKey(id string) string             { return join(keyOverlay, id) }
func countKey(id string) string               { return join(keyCounts, id) }
func endpointKey(network, id string) string   { return join(keyEndpoints, network, id) }
func addressesKey(subnet netip.Prefix) string { return join(keyAddresses, subnet.String()) }

// poolID is how an address pool is called.
func poolID(subnet netip.Prefix) string { return addressSpace + "/" + subnet.String() }
