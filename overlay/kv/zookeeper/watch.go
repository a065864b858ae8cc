package zookeeper

import (
	"context"
	"errors"
	"iter"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/go-zookeeper/zk"

	"github.com/usernet/usernet/overlay/kv"
)

// readers is how many nodes a watch reads at a time.
const readers = 32

// watch follows a tree of nodes: a watch of ZooKeeper's on each of them, which tells once and is then set again by
// reading.
type watch struct {
	store   *Store
	session *session
	wake    chan struct{} // has room for one: there are events
	mu      sync.Mutex    // guards events
	events  []zk.Event

	known    map[string]kv.Revision // keys
	dirs     map[string][]string    // directories that are watched, with the names in them
	versions map[string]int32       // of the first directories
}

// add notes an event. The library's goroutine calls it.
func (w *watch) add(e zk.Event) {
	w.mu.Lock()
	w.events = append(w.events, e)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watch) take() []zk.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events = nil
	return events
}

// Watch implements kv.Store.
func (s *Store) Watch(ctx context.Context) iter.Seq2[kv.Event, error] {
	return func(yield func(kv.Event, error) bool) {
		if err := s.follow(ctx, func(e kv.Event) bool { return yield(e, nil) }); err != nil && ctx.Err() == nil {
			yield(kv.Event{}, s.fail(err))
		}
	}
}

// follow is Watch. It returns nil when yield returned false.
func (s *Store) follow(ctx context.Context, yield func(kv.Event) bool) error {
	c, err := s.current(ctx)
	if err != nil {
		return err
	}
	w := &watch{
		store: s, session: c, wake: make(chan struct{}, 1),
		known: map[string]kv.Revision{}, dirs: map[string][]string{}, versions: map[string]int32{},
	}
	c.mu.Lock()
	c.watches[w] = struct{}{}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.watches, w)
		c.mu.Unlock()
	}()
	if err := s.parents(ctx, c, s.root+"/x"); err != nil {
		return err
	}
	list, err := w.tree(ctx, s.root)
	if err != nil {
		return err
	}
	if !yield(kv.Event{Kind: kv.EventList, List: list, State: w.state()}) {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
		for _, e := range w.take() {
			events, err := w.changed(ctx, e)
			if err != nil {
				return err
			}
			for _, event := range events {
				event.State = w.state()
				if !yield(event) {
					return nil
				}
			}
		}
	}
}

// state is the sum of the versions of the first directories.
func (w *watch) state() kv.State {
	var state kv.State
	for _, v := range w.versions {
		state.Revision += uint64(v)
	}
	return state
}

// changed is what an event of the library means.
func (w *watch) changed(ctx context.Context, e zk.Event) ([]kv.Event, error) {
	switch {
	case e.Type == zk.EventNotWatching || e.Err != nil:
		return nil, errors.New("the session ended")
	case e.Path != w.store.root && !strings.HasPrefix(e.Path, w.store.root+"/"):
		return nil, nil // another watch's
	case e.Type == zk.EventNodeChildrenChanged:
		return w.dirChanged(ctx, e.Path)
	default:
		return w.nodeChanged(ctx, e.Path)
	}
}

// dirChanged reads a directory again. What is new in it is read; what is gone tells so itself.
func (w *watch) dirChanged(ctx context.Context, dir string) ([]kv.Event, error) {
	before, is := w.dirs[dir]
	if !is {
		return nil, nil
	}
	names, err := w.children(ctx, dir)
	if errors.Is(err, zk.ErrNoNode) {
		delete(w.dirs, dir)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := w.readVersion(ctx, dir); err != nil {
		return nil, err
	}
	var events []kv.Event
	for _, name := range names {
		if _, old := slices.BinarySearch(before, name); old {
			continue
		}
		pairs, err := w.tree(ctx, dir+"/"+name)
		if err != nil {
			return nil, err
		}
		for _, p := range pairs {
			events = append(events, kv.Event{Kind: kv.EventPut, Pair: p})
		}
	}
	return events, nil
}

// nodeChanged reads a node again that changed or was deleted, and may have been made again.
func (w *watch) nodeChanged(ctx context.Context, node string) ([]kv.Event, error) {
	key := strings.TrimPrefix(node, w.store.root+"/")
	_, known := w.known[key]
	_, dir := w.dirs[node]
	if dir && path.Dir(node) == w.store.root {
		return nil, w.readVersion(ctx, node) // its version counts changes
	}
	if !known && !dir {
		return nil, nil
	}
	pairs, err := w.tree(ctx, node)
	if err != nil {
		return nil, err
	}
	var events []kv.Event
	if _, still := w.known[key]; known && !still {
		events = append(events, kv.Event{Kind: kv.EventDelete, Pair: kv.Pair{Key: key}})
	}
	for _, p := range pairs {
		events = append(events, kv.Event{Kind: kv.EventPut, Pair: p})
	}
	return events, nil
}

// children reads the sorted names in a directory and watches it.
func (w *watch) children(ctx context.Context, dir string) ([]string, error) {
	names, err := do(ctx, w.session, func(conn *zk.Conn) ([]string, error) {
		names, _, _, err := conn.ChildrenW(dir)
		return names, err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	w.dirs[dir] = names
	return names, nil
}

// readVersion reads the version of the first directory that a directory is in.
func (w *watch) readVersion(ctx context.Context, dir string) error {
	key, ok := strings.CutPrefix(dir, w.store.root+"/")
	if !ok {
		return nil
	}
	kind := w.store.kind(key)
	n, err := get(ctx, w.session, kind)
	if err == nil {
		w.versions[kind] = n.stat.Version
	}
	if errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	return err
}

// tree reads and watches a node and what is below it, and returns the keys that were not known with their revision.
// What is gone is not known any more.
func (w *watch) tree(ctx context.Context, top string) ([]kv.Pair, error) {
	var pairs []kv.Pair
	for level := []string{top}; len(level) > 0; {
		nodes, err := w.read(ctx, level)
		if err != nil {
			return nil, err
		}
		var next []string
		for i, n := range nodes {
			node := level[i]
			key := strings.TrimPrefix(node, w.store.root+"/")
			if n.stat == nil { // what is made again, its directory tells
				delete(w.known, key)
				delete(w.dirs, node)
				continue
			}
			if len(n.value) > 0 {
				if revision := kv.Revision(n.stat.Mzxid); w.known[key] != revision {
					w.known[key] = revision
					pairs = append(pairs, kv.Pair{Key: key, Value: n.value, Revision: revision})
				}
				continue
			}
			if path.Dir(node) == w.store.root {
				w.versions[node] = n.stat.Version // before what is in it
			}
			names, err := w.children(ctx, node)
			if err != nil && !errors.Is(err, zk.ErrNoNode) {
				return nil, err
			}
			for _, name := range names {
				next = append(next, node+"/"+name)
			}
		}
		level = next
	}
	return pairs, nil
}

// read reads and watches nodes, some at a time. One that is not there has no stat.
func (w *watch) read(ctx context.Context, nodes []string) ([]content, error) {
	all := make([]content, len(nodes))
	errs := make([]error, min(readers, len(nodes)))
	var workers sync.WaitGroup
	for r := range errs {
		workers.Go(func() {
			for i := r; i < len(nodes) && errs[r] == nil; i += len(errs) {
				var err error
				all[i], err = do(ctx, w.session, func(conn *zk.Conn) (content, error) {
					value, stat, _, err := conn.GetW(nodes[i])
					return content{value, stat}, err
				})
				if errors.Is(err, zk.ErrNoNode) {
					all[i], err = content{}, nil
				}
				errs[r] = err
			}
		})
	}
	workers.Wait()
	return all, errors.Join(errs...)
}
