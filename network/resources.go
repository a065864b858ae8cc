package network

import (
	"runtime"

	"github.com/usernet/usernet/internal/errdefs"
)

// Resources are what a container may use, as in Docker's HostConfig. 0 of each: no limit.
type Resources struct {
	Memory     int64 `json:"memory,omitempty"`      // bytes
	MemorySwap int64 `json:"memory_swap,omitempty"` // bytes of memory and swap together; -1: no limit of swap
	NanoCPUs   int64 `json:"nano_cpus,omitempty"`   // processors, in units of 10⁻⁹
	PidsLimit  int64 `json:"pids_limit,omitempty"`  // processes and threads
}

// leastMemory is Docker's least limit, in bytes.
const leastMemory = 6 << 20

// IsZero says that nothing is limited.
func (r Resources) IsZero() bool { return r == Resources{} }

// Swap is how much swap may be used beside Memory, in bytes; negative: no limit.
func (r Resources) Swap() int64 {
	if r.Memory == 0 || r.MemorySwap < 0 {
		return -1
	}
	return max(r.MemorySwap-r.Memory, 0)
}

// WithDefaults has numbers that mean "no limit" as 0, and as much swap as memory where nothing is said, as in Docker.
func (r Resources) WithDefaults() Resources {
	if r.Memory > 0 && r.MemorySwap == 0 {
		r.MemorySwap = 2 * r.Memory
	}
	if r.Memory == 0 && r.MemorySwap < 0 {
		r.MemorySwap = 0
	}
	r.PidsLimit = max(r.PidsLimit, 0)
	return r
}

// Check refuses limits that make no sense, in Docker's words (daemon/daemon_unix.go, verifyPlatformContainerResources).
func (r Resources) Check() error {
	cpus := runtime.NumCPU()
	switch {
	case r.Memory < 0 || r.Memory > 0 && r.Memory < leastMemory:
		return errdefs.Invalid("Minimum memory limit allowed is 6MB")
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return errdefs.Invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0:
		return errdefs.Invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.NanoCPUs < 0 || r.NanoCPUs > int64(cpus)*1e9:
		return errdefs.Invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	}
	return nil
}

// Changed is r with the limits of c, where it has one: an update says nothing of the others. As in Docker, a limit of
// memory above that of memory and swap needs one of both.
func (r Resources) Changed(c Resources) (Resources, error) {
	if c.Memory != 0 {
		if c.MemorySwap == 0 && r.MemorySwap > 0 && c.Memory > r.MemorySwap {
			return r, errdefs.Invalid("Memory limit should be smaller than already set memoryswap limit, update the " +
				"memoryswap at the same time")
		}
		r.Memory = c.Memory
	}
	if c.MemorySwap != 0 {
		r.MemorySwap = c.MemorySwap
	}
	if c.NanoCPUs != 0 {
		r.NanoCPUs = c.NanoCPUs
	}
	if c.PidsLimit != 0 {
		r.PidsLimit = c.PidsLimit
	}
	if err := r.Check(); err != nil {
		return r, err
	}
	return r.WithDefaults(), nil
}
