package forwarder

import (
	"net/netip"

	"github.com/usernet/usernet/forwarder/mapping"
)

// Limits bound what may exist at once, for one container or for the daemon. 0 does not limit.
type Limits struct {
	Dialling int // TCP connections being set up
	TCP      int // TCP connections
	UDP      int // UDP associations
	Clients  int // clients of published UDP ports
	Echo     int // identifiers being pinged with
	// Memory bounds the buffers of TCP connections through the gateway, in bytes.
	Memory int64
}

// DefaultLimits, for a container, serve a busy one and leave room for others.
var DefaultLimits = Limits{Dialling: 1024, TCP: 16384, UDP: 4096, Clients: 4096, Echo: 64, Memory: 128 << 20}

// usageKind is what a limit counts.
type usageKind int

const (
	useDialling usageKind = iota
	useTCP
	useUDP
	useClients
	useEcho
	usageKinds
)

// of is the limit on a kind.
func (l Limits) of(k usageKind) int {
	return [usageKinds]int{l.Dialling, l.TCP, l.UDP, l.Clients, l.Echo}[k]
}

// usage is what one container has at once.
type usage [usageKinds]int

// limitCounters say where a use beyond a limit is counted.
var limitCounters = [usageKinds]counter{countDialLimit, countTCPLimit, countUDPLimit, countClientsLimit, countEchoLimit}

// acquireUse counts one more use of a kind for the container at an inside address, unless that passes its limit or the
// daemon's.
func (f *Forwarder) acquireUse(inside netip.Addr, kind usageKind) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.acquireUseLocked(inside, kind)
}

// acquireUseLocked is acquireUse; the caller holds f.mu.
func (f *Forwarder) acquireUseLocked(inside netip.Addr, kind usageKind) bool {
	if f.closed {
		return false
	}
	u := f.use[inside]
	if limit := f.cfg.Limits.of(kind); limit > 0 && u[kind] >= limit {
		f.counters[limitCounters[kind]].Add(1)
		return false
	}
	total := f.cfg.Shared.use[kind].Add(1)
	if limit := f.cfg.Shared.limits.of(kind); limit > 0 && total > int64(limit) {
		f.cfg.Shared.use[kind].Add(-1)
		f.counters[limitCounters[kind]].Add(1)
		return false
	}
	u[kind]++
	f.use[inside] = u
	return true
}

// releaseUse takes a use back.
func (f *Forwarder) releaseUse(inside netip.Addr, kind usageKind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.releaseUseLocked(inside, kind)
}

// releaseUseLocked is releaseUse; the caller holds f.mu.
func (f *Forwarder) releaseUseLocked(inside netip.Addr, kind usageKind) {
	f.cfg.Shared.use[kind].Add(-1)
	u := f.use[inside]
	u[kind]--
	if u == (usage{}) {
		delete(f.use, inside)
	} else {
		f.use[inside] = u
	}
}

// kindLimiter counts uses of one kind for a table of mappings.
type kindLimiter struct {
	f    *Forwarder
	kind usageKind
}

var _ mapping.Limiter = kindLimiter{}

// Acquire implements mapping.Limiter.
func (l kindLimiter) Acquire(owner netip.Addr) bool { return l.f.acquireUse(owner, l.kind) }

// Release implements mapping.Limiter.
func (l kindLimiter) Release(owner netip.Addr) { l.f.releaseUse(owner, l.kind) }

// claimMapping is claimDescriptors for the socket of a mapping. Where no descriptor is left, another mapping of the
// container's is given up.
func (f *Forwarder) claimMapping(owner netip.Addr, giveUp func(netip.Addr) bool, fd int) (claim, bool) {
	c, ok := f.claimDescriptors(owner, mappingDescriptors, fd)
	if !ok && giveUp(owner) {
		c, ok = f.claimDescriptors(owner, mappingDescriptors, fd)
	}
	return c, ok
}
