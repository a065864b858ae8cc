package etcd

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/usernet/usernet/overlay/kv"
)

// lease is a kv.Lease.
type lease struct {
	store *Store
	id    clientv3.LeaseID
	stop  context.CancelFunc // ends keepalives
	lost  chan struct{}
}

// Lease implements kv.Store. etcd's leases have whole seconds, and no less than one and a half of its election
// timeouts.
func (s *Store) Lease(ctx context.Context, ttl time.Duration) (kv.Lease, error) {
	client, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	r, err := client.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return nil, s.fail(err)
	}
	kept, stop := context.WithCancel(s.closeCtx)
	answers, err := client.KeepAlive(kept, r.ID)
	if err != nil {
		stop()
		return nil, s.fail(err)
	}
	l := &lease{store: s, id: r.ID, stop: stop, lost: make(chan struct{})}
	s.keepers.Go(func() {
		for range answers { // closed by the library when the lease has ended, and by stop
		}
		close(l.lost)
	})
	return l, nil
}

// Lost implements kv.Lease.
func (l *lease) Lost() <-chan struct{} { return l.lost }

// Revoke implements kv.Lease.
func (l *lease) Revoke(ctx context.Context) error {
	l.stop()
	client, err := l.store.connect(ctx)
	if err != nil {
		return err
	}
	if _, err := client.Revoke(ctx, l.id); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return l.store.fail(err)
	}
	return nil
}
