package libnetwork

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/kv/zookeeper"
)

// zooKeeper is a Store in ZooKeeper. Nodes with data are keys; those above them have none, as libkv makes them.
type zooKeeper struct {
	root  string // "" or "/prefix"
	conn  *zk.Conn
	calls chan struct{} // has a token for each call under way: the library's calls wait for a server

	mu      sync.Mutex      // guards what follows
	armed   map[string]bool // watches that have not fired: a node for its data, with childrenMark for its children
	changed func()          // nil: nobody watches
}

// childrenMark is behind a node's name in zooKeeper.armed.
const childrenMark = "/"

const (
	zkSession  = 20 * time.Second // after which the servers forget this host's node, if it is not heard of
	zkRetry    = 100 * time.Millisecond
	zkCalls    = 64
	zkMaxDepth = 8 // directories below a listed one; an address of a subnet is 3 below
)

func newZooKeeper(l kv.Location) (*zooKeeper, error) {
	dial, err := zookeeper.Dialer(l)
	if err != nil {
		return nil, err
	}
	s := &zooKeeper{root: strings.TrimRight("/"+l.Prefix, "/"), calls: make(chan struct{}, zkCalls),
		armed: map[string]bool{}}
	s.conn, _, err = zk.Connect(l.Hosts, zkSession, zk.WithDialer(dial), zk.WithLogger(quiet{}), zk.WithLogInfo(false),
		zk.WithEventCallback(s.event), zk.WithMaxBufferSize(maxAnswer))
	if err == nil && l.User != "" {
		go func() { _ = s.conn.AddAuth("digest", []byte(l.User+":"+l.Password)) }() // it ends with the connection
	}
	return s, err
}

// quiet is the library's log. Its lines are what calls return.
type quiet struct{}

// Printf implements zk.Logger.
func (quiet) Printf(string, ...any) {}

// event is called by the library, and does not block.
func (s *zooKeeper) event(e zk.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.Type == zk.EventNodeChildrenChanged:
		delete(s.armed, e.Path+childrenMark)
	case e.Type == zk.EventNodeDataChanged:
		delete(s.armed, e.Path)
	case e.Type != zk.EventSession:
		delete(s.armed, e.Path)
		delete(s.armed, e.Path+childrenMark)
	case e.State == zk.StateExpired:
		clear(s.armed)
		return
	case e.State != zk.StateHasSession:
		return
	}
	if s.changed != nil {
		s.changed()
	}
}

// arm says whether a node is to be read with a watch: one that has one is not given another.
func (s *zooKeeper) arm(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil || s.armed[node] || len(s.armed) >= maxPairs {
		return false
	}
	s.armed[node] = true
	return true
}

func (s *zooKeeper) disarm(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.armed, node)
}

// do makes a call of the library, which ends with ctx for the caller.
func do[T any](ctx context.Context, s *zooKeeper, call func(*zk.Conn) (T, error)) (T, error) {
	var none T
	select {
	case s.calls <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("ZooKeeper: %w", context.Cause(ctx))
	}
	type outcome struct {
		v   T
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		defer func() { <-s.calls }()
		v, err := call(s.conn)
		for errors.Is(err, zk.ErrNoServer) && ctx.Err() == nil { // it was not sent: there may be one in a moment
			kv.Sleep(ctx, zkRetry)
			v, err = call(s.conn)
		}
		done <- outcome{v, err}
	}()
	select {
	case o := <-done:
		return o.v, o.err
	case <-ctx.Done():
		return none, fmt.Errorf("ZooKeeper: %w", context.Cause(ctx))
	}
}

// node is a key's.
func (s *zooKeeper) node(key string) string { return s.root + "/" + join(key) }

// content is what a node has.
type content struct {
	data []byte
	stat *zk.Stat
}

// pair is a node as a key.
func (s *zooKeeper) pair(node string, c content) (Pair, error) {
	if len(c.data) > maxValue {
		return Pair{}, errTooMuch
	}
	key := strings.Trim(strings.TrimPrefix(node, s.root), "/")
	return Pair{Key: key, Value: c.data, Index: uint64(c.stat.Version) + 1}, nil // the first version is 0
}

// Get implements Store.
func (s *zooKeeper) Get(ctx context.Context, key string) (Pair, error) {
	c, err := s.read(ctx, s.node(key), false)
	switch {
	case errors.Is(err, zk.ErrNoNode) || err == nil && len(c.data) == 0:
		return Pair{}, ErrNotFound
	case err != nil:
		return Pair{}, err
	}
	return s.pair(s.node(key), c)
}

// read reads a node's data.
func (s *zooKeeper) read(ctx context.Context, node string, watch bool) (content, error) {
	return do(ctx, s, func(conn *zk.Conn) (c content, err error) {
		if watch {
			c.data, c.stat, _, err = conn.GetW(node)
		} else {
			c.data, c.stat, err = conn.Get(node)
		}
		return c, err
	})
}

// List implements Store.
func (s *zooKeeper) List(ctx context.Context, dir string) ([]Pair, error) {
	return s.list(ctx, s.node(dir), nil, 0)
}

func (s *zooKeeper) list(ctx context.Context, node string, found []Pair, depth int) ([]Pair, error) {
	names, err := s.children(ctx, node)
	if errors.Is(err, zk.ErrNoNode) {
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		child := path.Join(node, name)
		c, err := s.watched(ctx, child)
		if errors.Is(err, zk.ErrNoNode) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(c.data) > 0 {
			p, err := s.pair(child, c)
			if err != nil || len(found) == maxPairs {
				return nil, errTooMuch
			}
			found = append(found, p)
		}
		if c.stat.NumChildren > 0 && depth < zkMaxDepth {
			if found, err = s.list(ctx, child, found, depth+1); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// watched reads a node's data, and has its changes told.
func (s *zooKeeper) watched(ctx context.Context, node string) (content, error) {
	watch := s.arm(node)
	c, err := s.read(ctx, node, watch)
	if err != nil && watch {
		s.disarm(node)
	}
	return c, err
}

// children are the names of the nodes below one, whose changes are told.
func (s *zooKeeper) children(ctx context.Context, node string) ([]string, error) {
	watch := s.arm(node + childrenMark)
	names, err := do(ctx, s, func(conn *zk.Conn) (names []string, err error) {
		if watch {
			names, _, _, err = conn.ChildrenW(node)
		} else {
			names, _, err = conn.Children(node)
		}
		return names, err
	})
	if err != nil && watch {
		s.disarm(node + childrenMark)
	}
	return names, err
}

// Put implements Store.
func (s *zooKeeper) Put(ctx context.Context, key string, value []byte, index uint64) error {
	node := s.node(key)
	if index != 0 {
		_, err := do(ctx, s, func(conn *zk.Conn) (*zk.Stat, error) {
			return conn.Set(node, value, int32(index-1))
		})
		return zkConflict(err)
	}
	err := s.create(ctx, node, value, 0)
	if errors.Is(err, zk.ErrNodeExists) {
		return s.fill(ctx, node, value)
	}
	return err
}

// fill writes a node that is there without data: a directory, or one whose daemon has not written it yet.
func (s *zooKeeper) fill(ctx context.Context, node string, value []byte) error {
	c, err := s.read(ctx, node, false)
	if err != nil || len(c.data) > 0 {
		return ErrConflict
	}
	_, err = do(ctx, s, func(conn *zk.Conn) (*zk.Stat, error) { return conn.Set(node, value, c.stat.Version) })
	return zkConflict(err)
}

// create makes a node and those above it.
func (s *zooKeeper) create(ctx context.Context, node string, value []byte, flags int32) error {
	one := func(node string, value []byte, flags int32) error {
		_, err := do(ctx, s, func(conn *zk.Conn) (string, error) {
			return conn.Create(node, value, flags, zk.WorldACL(zk.PermAll))
		})
		return err
	}
	err := one(node, value, flags)
	if !errors.Is(err, zk.ErrNoNode) {
		return err
	}
	words := strings.Split(strings.Trim(node, "/"), "/")
	for i := 1; i < len(words); i++ {
		err := one("/"+strings.Join(words[:i], "/"), []byte{}, 0)
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
	return one(node, value, flags)
}

func zkConflict(err error) error {
	if errors.Is(err, zk.ErrBadVersion) || errors.Is(err, zk.ErrNoNode) || errors.Is(err, zk.ErrNodeExists) {
		return ErrConflict
	}
	return err
}

// Delete implements Store.
func (s *zooKeeper) Delete(ctx context.Context, key string, index uint64) error {
	_, err := do(ctx, s, func(conn *zk.Conn) (any, error) {
		return nil, conn.Delete(s.node(key), int32(index-1))
	})
	if errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	return zkConflict(err)
}

// Beat implements Store: the node is this session's, whatever ttl is.
func (s *zooKeeper) Beat(ctx context.Context, key, value string, _ time.Duration) error {
	node := s.node(key)
	c, err := s.read(ctx, node, false)
	switch {
	case err == nil && c.stat.EphemeralOwner == s.conn.SessionID():
		return nil
	case err == nil: // of an earlier life
		if err := s.Delete(ctx, key, uint64(c.stat.Version)+1); err != nil {
			return err
		}
	case !errors.Is(err, zk.ErrNoNode):
		return err
	}
	return s.create(ctx, node, []byte(value), zk.FlagEphemeral)
}

// Watch implements Store. Nodes that List has read are watched.
func (s *zooKeeper) Watch(ctx context.Context, _ string, changed func()) {
	s.mu.Lock()
	s.changed = changed
	s.mu.Unlock()
	changed()
	<-ctx.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = nil
}

// Close implements Store.
func (s *zooKeeper) Close() error {
	s.conn.Close()
	return nil
}
