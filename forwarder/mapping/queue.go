package mapping

import (
	"container/list"
	"net/netip"
	"sync"
)

// queues are those of a table, one for each container.
type queues struct {
	mu   sync.Mutex // guards what follows, and the table's entries
	each map[netip.Addr]*queue
}

// queue has a container's mappings in the order in which they are given up where there is no room for another: first
// those that were never answered, the oldest first, then answered ones, of which those that were used since they came
// to the front get a second turn.
type queue struct{ unanswered, answered list.List }

// addLocked gives a mapping its place. The caller holds qs.mu, here and below.
func (qs *queues) addLocked(e Entry) {
	m := e.Base()
	q := qs.each[m.owner]
	if q == nil {
		q = new(queue)
		qs.each[m.owner] = q
	}
	q.add(e, m)
}

// removeLocked takes a mapping's place.
func (qs *queues) removeLocked(m *Mapping) {
	q := qs.each[m.owner]
	if q == nil {
		return
	}
	q.remove(m)
	if q.empty() {
		delete(qs.each, m.owner)
	}
}

// promote notes that a mapping was answered.
func (qs *queues) promote(m *Mapping) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if q := qs.each[m.owner]; q != nil {
		q.promote(m)
	}
}

func (q *queue) add(e Entry, m *Mapping) {
	m.queued = clock()
	m.place = q.unanswered.PushBack(e)
}

func (q *queue) promote(m *Mapping) {
	if m.place == nil {
		return // it is being given up
	}
	e := q.unanswered.Remove(m.place)
	m.queued = clock()
	m.place = q.answered.PushBack(e)
}

func (q *queue) remove(m *Mapping) {
	if m.place != nil { // in one of them
		q.unanswered.Remove(m.place)
		q.answered.Remove(m.place)
		m.place = nil
	}
}

// oldest removes the mapping that is given up next from the queue; nil: there is none.
func (q *queue) oldest() Entry {
	e := q.unanswered.Front()
	for range q.answered.Len() {
		if e != nil {
			break
		}
		front := q.answered.Front()
		if m := front.Value.(Entry).Base(); m.last.Load() > m.queued {
			m.queued = clock()
			q.answered.MoveToBack(front)
			continue
		}
		e = front
	}
	if e == nil {
		e = q.answered.Front() // all were used since
	}
	if e == nil {
		return nil
	}
	who := e.Value.(Entry)
	q.remove(who.Base())
	return who
}

func (q *queue) empty() bool { return q.unanswered.Len()+q.answered.Len() == 0 }

// of are the mappings of a container.
func (qs *queues) of(owner netip.Addr) (all []Entry) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if q := qs.each[owner]; q != nil {
		for _, half := range []*list.List{&q.unanswered, &q.answered} {
			for e := half.Front(); e != nil; e = e.Next() {
				all = append(all, e.Value.(Entry))
			}
		}
	}
	return all
}

// expired are the mappings that were unused for longer than their lifetime.
func (qs *queues) expired(l Lifetimes, now int64) (all []Entry) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	for _, q := range qs.each {
		for _, half := range []*list.List{&q.unanswered, &q.answered} {
			for e := half.Front(); e != nil; e = e.Next() {
				entry := e.Value.(Entry)
				if m := entry.Base(); now-m.last.Load() > int64(l.of(m)) {
					all = append(all, entry)
				}
			}
		}
	}
	return all
}
