package memory

import (
	"context"
	"time"

	"github.com/usernet/usernet/overlay/kv"
)

// lease is kept alive by its client as long as the client reaches the server.
type lease struct {
	client *Client
	keys   map[string]struct{}
	ended  bool
	lost   chan struct{} // closed with ended
	ttl    time.Duration
	timer  *time.Timer // ends it
	renew  *time.Timer
}

// Lease implements kv.Store.
func (c *Client) Lease(ctx context.Context, ttl time.Duration) (kv.Lease, error) {
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	s := c.server
	defer s.mu.Unlock()
	l := &lease{client: c, keys: map[string]struct{}{}, lost: make(chan struct{}), ttl: ttl}
	l.timer = time.AfterFunc(ttl, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.end()
	})
	l.renew = time.AfterFunc(ttl/3, l.renewed)
	s.leases[l] = struct{}{}
	return l, nil
}

// renewed puts the end off, if the server is reached.
func (l *lease) renewed() {
	l.client.server.mu.Lock()
	defer l.client.server.mu.Unlock()
	if l.ended || l.client.closed {
		return
	}
	if f := l.client.fault; f.Err == nil && !f.Hang {
		l.timer.Reset(l.ttl)
	}
	l.renew.Reset(l.ttl / 3)
}

// end deletes the lease's keys. The caller holds the lock.
func (l *lease) end() {
	if l.ended {
		return
	}
	l.ended = true
	l.timer.Stop()
	l.renew.Stop()
	close(l.lost)
	delete(l.client.server.leases, l)
	for key := range l.keys {
		l.client.server.remove(key)
	}
}

// Lost implements kv.Lease.
func (l *lease) Lost() <-chan struct{} { return l.lost }

// Revoke implements kv.Lease.
func (l *lease) Revoke(ctx context.Context) error {
	if err := l.client.ready(ctx); err != nil {
		return err
	}
	defer l.client.server.mu.Unlock()
	l.end()
	return nil
}
