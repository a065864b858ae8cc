package vswitch

import "time"

// Role is what is behind a port, and so what the switch lets it do.
//
//	            headers  source MAC and       MACs learned   reached by isolated
//	            checked  addresses checked    (LearnLimit)   ports
//	Guest       yes      its own only         none           by links (Switch.SetLinks)
//	Learning    yes      nobody else's MAC    64             by links
//	Gateway     no       no                   none           yes
//	Fabric      yes      nobody else's MAC    none           by links
//	Uplink      yes      nobody else's MAC    4096, 5 min    by links; never by the gateway, nor reaches it
//
// A frame to a MAC that no port is known to have goes to the ports that learn, and to no others.
type Role uint8

// The roles. Guest, the strictest, is the zero value.
const (
	Guest    Role = iota // a container
	Learning             // a nested bridge or virtual machines: any MAC may be behind it
	Gateway              // the network's own: nothing that it sends is checked
	Fabric               // other hosts of the same network: what is behind it is said by Switch.SetStatic
	Uplink               // a physical network
	numRoles
)

var roleNames = [numRoles]string{
	Guest:    "guest",
	Learning: "learning",
	Gateway:  "gateway",
	Fabric:   "fabric",
	Uplink:   "uplink",
}

func (r Role) String() string {
	if r < numRoles {
		return roleNames[r]
	}
	return "none"
}

// MarshalText makes a Role a word in JSON.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// NoLearning as a LearnLimit has a port learn nothing, whatever its role.
const NoLearning = -1

// Bounds of what a port learns. A nested bridge has a few dozen containers or virtual machines behind it; bridges keep
// what they have learned for 5 minutes (IEEE 802.1Q, table 8-6: ageing time).
const (
	learningLimit = 64
	uplinkLimit   = 4096
	uplinkAge     = 5 * time.Minute
)

// learnLimit is how many MACs may be learned behind a port.
func (c *PortConfig) learnLimit() int {
	switch {
	case c.Role == Guest || c.Role == Gateway || c.LearnLimit < 0:
		return 0
	case c.LearnLimit > 0:
		return c.LearnLimit
	case c.Role == Learning:
		return learningLimit
	case c.Role == Uplink:
		return uplinkLimit
	}
	return 0
}

// age is for how long a MAC that sends nothing stays learned; 0: for good.
func (c *PortConfig) age() time.Duration {
	if c.Age == 0 && c.Role == Uplink {
		return uplinkAge
	}
	return c.Age
}
