package consul

import (
	"context"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/table"
)

// minTTL is the shortest session that Consul makes.
const minTTL = 10 * time.Second

// lease is a session, and a kv.Lease.
type lease struct {
	store *Store
	id    string
	stop  context.CancelFunc // ends renewing
	lost  chan struct{}
}

// Lease implements kv.Store.
func (s *Store) Lease(ctx context.Context, ttl time.Duration) (kv.Lease, error) {
	ttl = max(ttl, minTTL)
	// LockDelay: a key can be taken at once when its session has ended. 0 would mean 15 s.
	id, _, err := s.client.Session().CreateNoChecks(&api.SessionEntry{
		Name: "usernet", TTL: ttl.String(), Behavior: api.SessionBehaviorDelete, LockDelay: time.Millisecond,
	}, writing(ctx))
	if err != nil {
		return nil, fail(err)
	}
	kept, stop := context.WithCancel(s.closeCtx)
	l := &lease{store: s, id: id, stop: stop, lost: make(chan struct{})}
	s.keepers.Go(func() {
		defer close(l.lost)
		l.renew(kept, ttl)
	})
	return l, nil
}

// renew returns when the session has ended, or ctx is done.
func (l *lease) renew(ctx context.Context, ttl time.Duration) {
	end := time.Now().Add(ttl)
	ticks := time.NewTicker(ttl / 3)
	defer ticks.Stop()
	for time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		sent := time.Now()
		limited, cancel := context.WithTimeout(ctx, table.CallTimeout)
		entry, _, err := l.store.client.Session().Renew(l.id, writing(limited))
		cancel()
		switch {
		case err == nil && entry == nil:
			return // it has ended
		case err == nil:
			end = sent.Add(ttl)
		}
	}
}

// Lost implements kv.Lease.
func (l *lease) Lost() <-chan struct{} { return l.lost }

// Revoke implements kv.Lease.
func (l *lease) Revoke(ctx context.Context) error {
	l.stop()
	_, err := l.store.client.Session().Destroy(l.id, writing(ctx))
	return fail(err)
}
