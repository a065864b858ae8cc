package engine

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds of what is remembered of refusals on a network. What a container is refused pushes out none of another's,
// unless more containers than these are refused something.
const (
	keptRefusals          = 16 // of each container
	keptRefusedContainers = 64
)

// Refusal is a destination or a name that a container was refused.
type Refusal struct {
	Time        time.Time // of the latest attempt
	Count       uint64    // of attempts
	Container   string    // its name then
	Proto       uint8     // of the IP header; 0: it is about a question for a name
	Destination netip.AddrPort
	Name        string // that was asked for
	Why         error  // a *policy.Refusal, or an error of package forwarder
}

// refusals has the latest ones of a network. The zero value is empty.
type refusals struct {
	mu sync.Mutex                    // guards the rest
	by map[string]*containerRefusals // by the container's id
}

type containerRefusals struct {
	list []Refusal
	last time.Time
}

// add notes a refusal, whose time is now. It may be called for each packet, and allocates for a new one only.
func (r *refusals) add(id string, one Refusal) {
	one.Time, one.Count = time.Now(), 1
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.by[id]
	if of == nil {
		of = r.newContainer(id)
	}
	of.last = one.Time
	oldest := 0
	for i := range of.list {
		old := &of.list[i]
		if old.Proto == one.Proto && old.Destination == one.Destination && old.Name == one.Name && old.Why == one.Why {
			old.Time = one.Time
			old.Count++
			return
		}
		if old.Time.Before(of.list[oldest].Time) {
			oldest = i
		}
	}
	if len(of.list) < keptRefusals {
		of.list = append(of.list, one)
	} else {
		of.list[oldest] = one
	}
}

// newContainer makes room for one more container. The caller holds r.mu.
func (r *refusals) newContainer(id string) *containerRefusals {
	if r.by == nil {
		r.by = map[string]*containerRefusals{}
	}
	if len(r.by) >= keptRefusedContainers {
		quiet := ""
		for id, of := range r.by {
			if r.by[quiet] == nil || of.last.Before(r.by[quiet].last) {
				quiet = id
			}
		}
		delete(r.by, quiet)
	}
	of := &containerRefusals{}
	r.by[id] = of
	return of
}

// Refusals are the latest ones, those of containers that are gone included, the oldest first.
func (n *Network) Refusals() []Refusal {
	r := &n.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Refusal
	for _, of := range r.by {
		list = append(list, of.list...)
	}
	slices.SortFunc(list, func(a, b Refusal) int { return a.Time.Compare(b.Time) })
	return list
}
