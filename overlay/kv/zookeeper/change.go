package zookeeper

import (
	"context"
	"errors"
	"path"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/usernet/usernet/overlay/kv"
)

// change is one attempt to write or delete a key, by what is there. It returns the operations of one transaction, or
// errNothing.
type change func(there bool, n content) ([]any, error)

// errNothing ends a change that has nothing to do.
var errNothing = errors.New("nothing to do")

// apply makes a change. Another change meanwhile has it begin again.
func (s *Store) apply(ctx context.Context, c *session, key string, is kv.Revision, change change) error {
	kind, node := s.kind(key), s.node(key)
	for range maxConflicts {
		dir, err := get(ctx, c, kind) // before the node is read
		if errors.Is(err, zk.ErrNoNode) {
			if err := s.parents(ctx, c, node); err != nil {
				return s.fail(err)
			}
			continue
		}
		if err != nil {
			return s.fail(err)
		}
		n, err := get(ctx, c, node)
		there := err == nil
		if err != nil && !errors.Is(err, zk.ErrNoNode) {
			return s.fail(err)
		}
		revision := kv.Absent
		if there {
			revision = kv.Revision(n.stat.Mzxid)
		}
		ops, err := change(there, n)
		if errors.Is(err, errNothing) {
			return nil
		}
		if is != kv.Whatever && is != revision {
			return kv.ErrConflict
		}
		if is != kv.Whatever && is != kv.Absent {
			ops = append([]any{&zk.CheckVersionRequest{Path: kind, Version: dir.stat.Version}}, ops...)
		}
		_, err = do(ctx, c, func(conn *zk.Conn) ([]zk.MultiResponse, error) { return conn.Multi(ops...) })
		switch {
		case err == nil:
			return nil
		case errors.Is(err, zk.ErrNoNode) && !there: // a directory is missing
			if err := s.parents(ctx, c, node); err != nil {
				return s.fail(err)
			}
		case errors.Is(err, zk.ErrNodeExists), errors.Is(err, zk.ErrNoNode), errors.Is(err, zk.ErrBadVersion):
		default:
			return s.fail(err)
		}
	}
	return kv.ErrConflict
}

// count raises the version of a key's first directory.
func (s *Store) count(key string) any { return &zk.SetDataRequest{Path: s.kind(key), Version: -1} }

// Put implements kv.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, is kv.Revision, on kv.Lease) error {
	node := s.node(key)
	if on != nil {
		l := on.(*lease)
		if err := l.session.await(ctx); err != nil {
			return s.fail(err)
		}
		// An ephemeral node stays that of the session that made it, so it is made again.
		return s.apply(ctx, l.session, key, is, func(there bool, n content) ([]any, error) {
			create := &zk.CreateRequest{Path: node, Data: value, Acl: s.acl, Flags: zk.FlagEphemeral}
			if there {
				return []any{&zk.DeleteRequest{Path: node, Version: n.stat.Version}, create, s.count(key)}, nil
			}
			return []any{create, s.count(key)}, nil
		})
	}
	c, err := s.current(ctx)
	if err != nil {
		return s.fail(err)
	}
	return s.apply(ctx, c, key, is, func(there bool, n content) ([]any, error) {
		if there {
			return []any{&zk.SetDataRequest{Path: node, Data: value, Version: n.stat.Version}}, nil
		}
		return []any{&zk.CreateRequest{Path: node, Data: value, Acl: s.acl}, s.count(key)}, nil
	})
}

// Delete implements kv.Store.
func (s *Store) Delete(ctx context.Context, key string, is kv.Revision) error {
	c, err := s.current(ctx)
	if err != nil {
		return s.fail(err)
	}
	err = s.apply(ctx, c, key, is, func(there bool, n content) ([]any, error) {
		if !there {
			return nil, errNothing
		}
		return []any{&zk.DeleteRequest{Path: s.node(key), Version: n.stat.Version}, s.count(key)}, nil
	})
	if err != nil {
		return err
	}
	// A directory below the first ones goes with its last node; one that is not empty, or is there no more, is left as
	// it is.
	if dir := path.Dir(s.node(key)); dir != s.kind(key) {
		_, _ = do(ctx, c, func(conn *zk.Conn) (any, error) { return nil, conn.Delete(dir, -1) })
	}
	return nil
}

// lease is a session, and a kv.Lease.
type lease struct {
	session *session
	lost    chan struct{}
}

// Lease implements kv.Store. The servers bound ttl by 2 and 20 of their ticks.
func (s *Store) Lease(ctx context.Context, ttl time.Duration) (kv.Lease, error) {
	// There is a server: sessions that wait for one are not piled up.
	if _, err := s.current(ctx); err != nil {
		return nil, s.fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, errors.New("the store is closed")
	}
	c, err := s.begin(ttl)
	if err != nil {
		return nil, err
	}
	l := &lease{session: c, lost: make(chan struct{})}
	s.leases.Go(func() {
		defer close(l.lost)
		s.hold(c, ttl)
	})
	return l, nil
}

// hold returns when a session has ended, and closes it.
func (s *Store) hold(c *session, ttl time.Duration) {
	defer c.end()
	for {
		c.mu.Lock()
		changed, expired := c.changed, c.expired
		c.mu.Unlock()
		if expired || c.away() > ttl {
			return
		}
		select {
		case <-s.closed:
			return
		case <-changed:
		case <-time.After(ttl / 4):
		}
	}
}

// Lost implements kv.Lease.
func (l *lease) Lost() <-chan struct{} { return l.lost }

// Revoke implements kv.Lease. A session that is closed takes its nodes along.
func (l *lease) Revoke(ctx context.Context) error {
	l.session.mu.Lock()
	l.session.expired = true
	l.session.change()
	l.session.mu.Unlock()
	select {
	case <-l.lost:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
