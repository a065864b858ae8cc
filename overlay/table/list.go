package table

import "github.com/usernet/usernet/overlay"

// listed notes that the backend has a row: a list that is read now may have been made before. The caller holds mu.
func (t *Table) listed(key string) {
	if t.mu.listing != nil {
		t.mu.listing[key] = true
	}
}

// applyEnd compares the list that has come with what is known. The caller holds mu.
func (t *Table) applyEnd() {
	now := t.cfg.Clock()
	listing := t.mu.listing
	if listing == nil {
		return
	}
	for key, e := range t.mu.rows {
		if listing[key] {
			continue
		}
		if _, is := t.mu.heard[key]; is {
			t.mu.heard[key] = hearsay{at: now, alone: true} // its owner puts it now
			continue
		}
		switch {
		case e.kind() == overlay.KindNetwork && t.needed(e):
			t.putBack(e)
			for _, claim := range claimsOf(e) {
				if c := t.mu.rows[claim]; c != nil && !listing[claim] {
					t.again(c, c.Version)
				}
			}
		case removable(e.kind()) && e.kind() != overlay.KindNetwork && t.claimNeeded(e):
			// it is put again with its network
		case e.Owner == t.cfg.Host && !removable(e.kind()):
			t.again(e, e.Version)
		case t.mu.rewound:
			if e.missing == nil {
				next := *e
				next.missing = &now
				t.replace(&next)
			}
		case t.mu.dirty[key]:
			// it was put while the list was made, and is still to be sent
		default:
			t.remove(key)
		}
	}
	for key := range t.mu.gone {
		if !listing[key] {
			delete(t.mu.gone, key)
		}
	}
	for id := range t.hostsKnown() {
		if !listing[overlay.AliveKey(id)] {
			t.hostDown(id)
		}
	}
	if t.mu.err != nil {
		t.log.Info("the cluster's records are kept up to date again")
	}
	t.mu.err, t.mu.listing, t.mu.synced = nil, nil, true
	if t.mu.everSync.IsZero() {
		t.mu.everSync = now
	}
	t.mu.pending.Synced, t.mu.pending.Health = true, true
	t.tell()
	t.wake()
}

// needed says whether a network that the backend lacks is to be put again: it is in use here, or the backend's state
// went back and this host has made it. The caller holds mu.
func (t *Table) needed(e *entry) bool {
	return t.mu.rewound && e.Owner == t.cfg.Host ||
		t.cfg.Resurrect != nil && t.cfg.Resurrect(e.record.(overlay.Network).ID)
}

// claimNeeded says whether the name, subnet or number belongs to a network that is put again. The caller holds mu.
func (t *Table) claimNeeded(e *entry) bool {
	n := t.mu.rows[overlay.NetworkKey(e.record.(overlay.Name).Network)]
	return n != nil && t.needed(n)
}

// claimsOf are the keys that a network has claimed.
func claimsOf(e *entry) []string {
	n := e.record.(overlay.Network)
	list := []string{overlay.NameKey(n.Name), overlay.VNIKey(n.VNI)}
	for _, s := range n.Subnets {
		list = append(list, overlay.PoolKey(s.Subnet))
	}
	return list
}

// hostsKnown are the hosts that have rows or are heard of. The caller holds mu.
func (t *Table) hostsKnown() map[overlay.HostID]bool {
	all := map[overlay.HostID]bool{}
	for _, e := range t.mu.rows {
		all[e.Owner] = true
	}
	for id := range t.mu.alive {
		all[id] = true
	}
	return all
}
