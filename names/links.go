package names

import (
	"slices"
	"strings"
)

// Pair is a link between containers that are both there, by their ids.
type Pair struct{ From, To string }

// Links returns the links of endpoints on a network whose targets are there, each once.
func (t *Table) Links(id string) []Pair {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s := t.networks[id]
	if s == nil {
		return nil
	}
	pairs := map[Pair]struct{}{}
	for one := range s.linkers {
		for _, l := range one.Links {
			for _, o := range s.names[strings.ToLower(l.Target)] {
				if o.container != one.container {
					pairs[Pair{one.container, o.container}] = struct{}{}
				}
			}
		}
	}
	list := make([]Pair, 0, len(pairs))
	for p := range pairs {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Pair) int { return strings.Compare(a.From+" "+a.To, b.From+" "+b.To) })
	return list
}

// Linkers returns the containers that have one of targets in Container.Links.
func (t *Table) Linkers(targets ...string) []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := set{}
	for _, target := range targets {
		for id := range t.linkers[target] {
			all[id] = struct{}{}
		}
	}
	list := make([]string, 0, len(all))
	for id := range all {
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}

// LinkersOn returns the containers on a network that have Container.Links.
func (t *Table) LinkersOn(id string) []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := set{}
	for _, linking := range t.linkers {
		for c := range linking {
			if m := t.containers[c]; m != nil &&
				slices.ContainsFunc(m.seats, func(one *seat) bool { return one.Network == id }) {
				all[c] = struct{}{}
			}
		}
	}
	list := make([]string, 0, len(all))
	for id := range all {
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}
