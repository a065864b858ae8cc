// Package zookeeper is a kv.Store by ZooKeeper (3.5 and later) and go-zookeeper/zk.
//
// A key is a node with a value; nodes without one are its directories. ZooKeeper compares a node's version, which
// begins again with each node that is made, so a revision here is the transaction that last changed the node (mzxid),
// and a change by revision is one transaction with a check that no node was deleted since the revision was read: each
// key that is made or deleted raises the version of its first directory. The sum of those versions also tells an older
// state of the store.
//
// A lease is a session of its own, whose ephemeral nodes go with it.
package zookeeper

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
	"github.com/usernet/usernet/overlay/table"
)

const (
	// staleAfter is how long a session may be without a server until a new one is begun: a server with a restored
	// backup refuses clients that have seen later transactions, for ever.
	staleAfter = 5 * time.Second
	// maxConflicts is how often a change is tried that met another one in the same directory.
	maxConflicts = 32
	// maxAnswer bounds an answer in bytes: the list of a directory with 100,000 nodes has 4 MB.
	maxAnswer = 16 << 20
)

// Store is a kv.Store. New makes one.
type Store struct {
	location kv.Location
	root     string
	acl      []zk.ACL
	dial     zk.Dialer

	ending sync.WaitGroup // sessions that are being closed
	leases sync.WaitGroup // what watches them
	closed chan struct{}  // closed by Close

	mu      sync.Mutex // guards what follows
	session *session
	stopped bool
}

var _ kv.Store = (*Store)(nil)

// New makes a store. It does not connect yet.
func New(l kv.Location) (*Store, error) {
	dial, err := Dialer(l)
	if err != nil {
		return nil, err
	}
	s := &Store{
		location: l,
		root:     "/" + l.Prefix,
		acl:      zk.WorldACL(zk.PermAll),
		dial:     dial,
		closed:   make(chan struct{}),
	}
	if l.User != "" {
		s.acl = zk.DigestACL(zk.PermAll, l.User, l.Password)
	}
	return s, nil
}

// current is a session with a server, begun if there is none.
func (s *Store) current(ctx context.Context) (*session, error) {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return nil, errors.New("the store is closed")
	}
	if s.session != nil && s.session.away() > staleAfter {
		s.ending.Go(s.session.end)
		s.session = nil
	}
	if s.session == nil {
		var err error
		if s.session, err = s.begin(table.AliveTTL); err != nil {
			s.mu.Unlock()
			return nil, err
		}
	}
	c := s.session
	s.mu.Unlock()
	return c, c.await(ctx)
}

// do makes a call of the library, which knows no contexts: the call goes on when ctx is done, until the session has an
// answer or loses its server.
func do[T any](ctx context.Context, c *session, call func(*zk.Conn) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	select {
	case c.calls <- struct{}{}:
	case <-ctx.Done():
		return none, ctx.Err()
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-c.calls }()
		value, err := call(c.conn)
		done <- answer{value, err}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// fail is an error in kv's terms.
func (s *Store) fail(err error) error {
	switch {
	case errors.Is(err, zk.ErrNoAuth), errors.Is(err, zk.ErrAuthFailed), errors.Is(err, zk.ErrInvalidACL):
		if s.location.User == "" {
			return &kv.RefusedError{
				Err: fmt.Errorf("%s is not open to everybody: give USER:PASSWORD@ in the URL", s.root),
			}
		}
		return &kv.RefusedError{
			Err: fmt.Errorf("%s is not open to user %s with this password", s.root, s.location.User),
		}
	case errors.Is(err, zk.ErrConnectionClosed), errors.Is(err, zk.ErrNoServer), errors.Is(err, zk.ErrSessionExpired):
		return errors.New("the connection was lost")
	}
	return err
}

// node is a key's path.
func (s *Store) node(key string) string { return s.root + "/" + key }

// kind is the path of the first directory that a key is in.
func (s *Store) kind(key string) string {
	first, _, _ := strings.Cut(key, "/")
	return s.root + "/" + first
}

type content struct {
	value []byte
	stat  *zk.Stat
}

func get(ctx context.Context, c *session, node string) (content, error) {
	return do(ctx, c, func(conn *zk.Conn) (content, error) {
		value, stat, err := conn.Get(node)
		return content{value, stat}, err
	})
}

// Get implements kv.Store.
func (s *Store) Get(ctx context.Context, key string) (kv.Pair, error) {
	c, err := s.current(ctx)
	if err != nil {
		return kv.Pair{}, s.fail(err)
	}
	n, err := get(ctx, c, s.node(key))
	switch {
	case errors.Is(err, zk.ErrNoNode):
		return kv.Pair{}, kv.ErrNotFound
	case err != nil:
		return kv.Pair{}, s.fail(err)
	}
	return kv.Pair{Key: key, Value: n.value, Revision: kv.Revision(n.stat.Mzxid)}, nil
}

// Close implements kv.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return nil
	}
	s.stopped = true
	close(s.closed)
	if s.session != nil {
		s.ending.Go(s.session.end)
	}
	s.mu.Unlock()
	s.leases.Wait()
	s.ending.Wait()
	return nil
}

// parents makes the directories of a node.
func (s *Store) parents(ctx context.Context, c *session, node string) error {
	var missing []string
	for dir := path.Dir(node); dir != "/"; dir = path.Dir(dir) {
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		_, err := do(
			ctx,
			c,
			func(conn *zk.Conn) (string, error) { return conn.Create(missing[i], nil, 0, s.aclOf(missing[i])) },
		)
		// Missing rights to make a directory that is there are reported where they matter.
		if err != nil && !errors.Is(err, zk.ErrNodeExists) && !errors.Is(err, zk.ErrNoAuth) {
			return err
		}
	}
	return nil
}

// aclOf is who may use a node: what is above the prefix is not only usernet's.
func (s *Store) aclOf(node string) []zk.ACL {
	if node == s.root || strings.HasPrefix(node, s.root+"/") {
		return s.acl
	}
	return zk.WorldACL(zk.PermAll)
}
