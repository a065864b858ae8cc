package cni

import "github.com/containernetworking/cni/pkg/types"

// bandwidth is one of CNI's conventions, in bits and bits a second: ingress is to the container. A rate of 0 is none.
type bandwidth struct {
	IngressRate  uint64 `json:"ingressRate"`
	IngressBurst uint64 `json:"ingressBurst"`
	EgressRate   uint64 `json:"egressRate"`
	EgressBurst  uint64 `json:"egressBurst"`
}

// maxBurst is the largest burst, in bits: that of the plugin called bandwidth, which has 32 bits for the bytes.
const maxBurst = 8 * (1<<32 - 1)

// check refuses what that plugin refuses: a rate without a burst, and the other way round.
func (b bandwidth) check() error {
	for _, d := range []struct {
		name        string
		rate, burst uint64
	}{{"ingress", b.IngressRate, b.IngressBurst}, {"egress", b.EgressRate, b.EgressBurst}} {
		switch {
		case d.rate == 0 && d.burst == 0:
		case d.rate == 0:
			return invalid(types.ErrInvalidNetworkConfig, "bandwidth: %sBurst needs %[1]sRate", d.name)
		case d.burst == 0:
			return invalid(types.ErrInvalidNetworkConfig, "bandwidth: %sRate needs %[1]sBurst", d.name)
		case d.burst > maxBurst:
			return invalid(types.ErrInvalidNetworkConfig, "bandwidth: %sBurst is %d bits: at most %d", d.name, d.burst,
				uint64(maxBurst))
		}
	}
	return nil
}
