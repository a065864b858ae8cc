package mapping

import (
	"container/list"
	"net/netip"
	"sync/atomic"
	"time"
)

// Lifetimes say how long a mapping is kept after its last packet in either direction (RFC 4787 REQ-6).
type Lifetimes struct {
	Unanswered time.Duration // there were packets in one direction only
	Answered   time.Duration
	Brief      time.Duration // it is one of questions and answers (SetBrief)
}

// UDP are the lifetimes of UDP. Until it was answered nobody may be there, and anybody can bring such a mapping about
// with a forged source: 30 s is what Linux has for it (nf_conntrack_udp_timeout). RFC 4787 REQ-5 wants 2 minutes at
// least and recommends 5; what goes to port 53 alone needs no more than a resolver waits (REQ-5 c).
var UDP = Lifetimes{Unanswered: 30 * time.Second, Answered: 5 * time.Minute, Brief: 20 * time.Second}

// Ping are the lifetimes of ICMP echo: RFC 5508 REQ-2 wants 60 s at least.
var Ping = Lifetimes{Unanswered: 60 * time.Second, Answered: 60 * time.Second, Brief: 60 * time.Second}

// of is how long a mapping is kept.
func (l Lifetimes) of(m *Mapping) time.Duration {
	switch {
	case m.brief.Load():
		return l.Brief
	case m.answered.Load():
		return l.Answered
	}
	return l.Unanswered
}

// Mapping is what mappings of all kinds have in common: it counts to a container's limit, has an age, and has been
// answered or not. It is part of an Entry.
type Mapping struct {
	BytesIn, BytesOut, PacketsIn, PacketsOut atomic.Uint64 // "in" is towards the container

	created  time.Time
	last     atomic.Int64 // the last packet in either direction, by clock
	answered atomic.Bool  // there have been packets in both
	brief    atomic.Bool
	owner    netip.Addr // the container's address
	queues   *queues    // of its table

	place  *list.Element // in its container's queue; nil: it is in none. Guarded by queues.mu, as is queued
	queued int64         // when it came to its place, by clock
}

// Created is when the mapping was made.
func (m *Mapping) Created() time.Time { return m.created }

// Base implements Entry.
func (m *Mapping) Base() *Mapping { return m }

// Idle is how long ago the last packet was.
func (m *Mapping) Idle() time.Duration { return time.Duration(clock() - m.last.Load()) }

// Answered says whether there were packets in both directions.
func (m *Mapping) Answered() bool { return m.answered.Load() }

// Used notes a packet in either direction.
func (m *Mapping) Used() { m.last.Store(clock()) }

// Answer notes a packet for the container.
func (m *Mapping) Answer() {
	m.Used()
	if !m.answered.Load() && m.answered.CompareAndSwap(false, true) {
		m.queues.promote(m)
	}
}

// Brief says whether the mapping is one of questions and answers.
func (m *Mapping) Brief() bool { return m.brief.Load() }

// SetBrief says that the mapping is one of questions and answers, or no longer.
func (m *Mapping) SetBrief(brief bool) { m.brief.Store(brief) }

var started = time.Now()

// clock is how many nanoseconds this process is old: nobody who sets the machine's clock changes it.
func clock() int64 { return int64(time.Since(started)) }
