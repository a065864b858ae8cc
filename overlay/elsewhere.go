package overlay

import "errors"

// Elsewhere is an endpoint of another host, as this one has it answered for.
type Elsewhere struct {
	Endpoint
	// DNSNames are all names by which it is found on the network, the best first.
	DNSNames []string
	// Down says that its host is not heard of.
	Down bool
}

// ErrPoolTaken says that another network has a subnet. A drawn one is drawn anew.
var ErrPoolTaken = errors.New("another network of the hosts has this subnet")
