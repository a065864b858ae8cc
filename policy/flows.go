package policy

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of what is remembered about datagrams and pings between containers.
const (
	maxFlows = 1 << 14
	// flowFor is how long answers to a datagram or ping may come (RFC 4787 REQ-5).
	flowFor = 2 * time.Minute
)

// flowID is datagrams between two containers, as the first one sent them. For pings the ports are their number.
type flowID struct {
	src, dst netip.AddrPort
	proto    uint8
}

// flows are those whose answers may come. Where there are too many, the sender that has most loses some: a container
// that sends from all of its ports leaves the others theirs. The zero value is ready.
type flows struct {
	mu    sync.Mutex // guards what follows
	of    map[netip.Addr]map[flowID]time.Time
	total int
}

// note remembers that answers may come from now on.
func (f *flows) note(id flowID, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	src := id.src.Addr()
	if _, known := f.of[src][id]; !known {
		if f.total >= maxFlows {
			f.makeRoom(now)
		}
		if f.of == nil {
			f.of = map[netip.Addr]map[flowID]time.Time{}
		}
		if f.of[src] == nil {
			f.of[src] = map[flowID]time.Time{}
		}
		f.total++
	}
	f.of[src][id] = now.Add(flowFor)
}

// makeRoom forgets those whose time is over, and of the sender that has most at least an eighth of all. The caller
// holds mu.
func (f *flows) makeRoom(now time.Time) {
	var most netip.Addr
	for src, list := range f.of {
		for id, until := range list {
			if until.Before(now) {
				delete(list, id)
				f.total--
			}
		}
		if len(list) == 0 {
			delete(f.of, src)
		} else if len(list) > len(f.of[most]) {
			most = src
		}
	}
	for id := range f.of[most] {
		if f.total <= maxFlows-maxFlows/8 {
			return
		}
		delete(f.of[most], id)
		f.total--
	}
	if len(f.of[most]) == 0 {
		delete(f.of, most)
	}
}

// noted says whether answers may come.
func (f *flows) noted(id flowID, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	until, is := f.of[id.src.Addr()][id]
	return is && !now.After(until)
}
