package fabric

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/usernet/usernet/overlay"
)

// learnedAge is for how long a MAC that sends nothing stays learned (IEEE 802.1Q, table 8-6: ageing time).
const learnedAge = 5 * time.Minute

// learnedMACs says which foreign peer a MAC was seen behind. The zero value is empty.
type learnedMACs struct {
	mu sync.RWMutex // guards at
	at map[overlay.MAC]learnedMAC
}

type learnedMAC struct {
	peer *peer
	seen time.Time
}

func (t *learnedMACs) find(mac overlay.MAC) *peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	l, ok := t.at[mac]
	if !ok || time.Since(l.seen) > learnedAge {
		return nil
	}
	return l.peer
}

// saw notes a MAC behind a peer. A full table keeps what is not too old.
func (t *learnedMACs) saw(mac overlay.MAC, p *peer) {
	const refresh = time.Second // no need to write more often
	now := time.Now()
	t.mu.RLock()
	l, ok := t.at[mac]
	t.mu.RUnlock()
	if ok && l.peer == p && now.Sub(l.seen) < refresh {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at == nil {
		t.at = map[overlay.MAC]learnedMAC{}
	}
	if _, ok := t.at[mac]; !ok && len(t.at) >= maxLearned {
		for m, l := range t.at {
			if now.Sub(l.seen) > learnedAge {
				delete(t.at, m)
			}
		}
		if len(t.at) >= maxLearned {
			return
		}
	}
	t.at[mac] = learnedMAC{peer: p, seen: now}
}

// keep forgets the MACs that were seen behind other peers.
func (t *learnedMACs) keep(peers []*peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.at, func(_ overlay.MAC, l learnedMAC) bool { return !slices.Contains(peers, l.peer) })
}
