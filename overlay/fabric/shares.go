package fabric

import (
	"net/netip"
	"time"

	"github.com/usernet/usernet/internal/rate"
)

// A network's bounds of SYNs are shared by its containers on this host: one that floods must leave something to the
// others. Each has a small part that others do not use up, as long as there are not too many containers; the rest goes
// to those that ask first.
const (
	ownHeld     = 16 // SYNs that a source may hold back where others hold three quarters of all
	ownByFrames = 64 // and that are remembered to go by frames
	ownRate     = 10 // a second
	ownBurst    = 20
	// reservedRate is the part of heldRate that only sources within ownRate use.
	reservedRate, reservedBurst = heldRate / 5, heldBurst / 5
	// maxSources is how many sources are told apart: containers without port guard may use many addresses. Others
	// share one.
	maxSources = 4096
)

// synSource is an address that sends SYNs.
type synSource struct {
	held, byFrames int
	own            rate.Bucket
}

// shares are the sources of a network's SYNs. Their owner guards them.
type shares struct {
	sources       rate.Keyed[netip.Addr, synSource]
	all, reserved rate.Bucket
}

func (s *shares) init() {
	s.sources = rate.Keyed[netip.Addr, synSource]{
		Max: maxSources,
		New: func() *synSource { return &synSource{own: rate.Bucket{PerSecond: ownRate, Burst: ownBurst}} },
		Idle: func(o *synSource, now time.Time) bool {
			return o.held == 0 && o.byFrames == 0 && o.own.Full(now)
		},
	}
	s.all = rate.Bucket{PerSecond: heldRate - reservedRate, Burst: heldBurst - reservedBurst}
	s.reserved = rate.Bucket{PerSecond: reservedRate, Burst: reservedBurst}
}

// allow takes the time of one SYN of a source.
func (s *shares) allow(o *synSource, now time.Time) bool {
	own := o.own.Allow(now, 1)
	return s.all.Allow(now, 1) || own && s.reserved.Allow(now, 1)
}

// hasRoom says whether a source that has some of what all have together may have one more, of which own is its part of
// most.
func hasRoom(has, own, all, most int) bool {
	return all < most && (has < own || has < most/2 && all < most/4*3)
}
