// Package consul is a kv.Store by Consul's HTTP API and its official client.
//
// Compare-and-set is by ModifyIndex, which no two changes share. Consul tells that something below a prefix has
// changed, and then all that is there: a watch compares lists, so that one change costs a list of all keys on each
// host. A lease is a session without health checks, which ends when nobody renews it; Consul's sessions live for 10 s
// at least, and may live twice as long as they say.
package consul

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/usernet/usernet/overlay/kv"
)

const (
	// dialTimeout bounds the connection to one agent, so that another can be tried within a call.
	dialTimeout = 1500 * time.Millisecond
	// idleTimeout is how long a connection is kept for the next call, shorter than agents and their proxies do.
	idleTimeout = 30 * time.Second
)

// Store is a kv.Store. New makes one.
type Store struct {
	prefix    string // with a slash at its end
	beacon    string // a key beside the prefix: its ModifyIndex after a write is the server's own count of changes
	client    *api.Client
	transport *http.Transport

	// keepers renew leases until closeCtx is done.
	keepers  sync.WaitGroup
	closeCtx context.Context
	close    context.CancelFunc
}

var _ kv.Store = (*Store)(nil)

// New makes a store. It does not connect yet.
func New(l kv.Location) (*Store, error) {
	tlsConfig, err := l.TLSConfig()
	if err != nil {
		return nil, err
	}
	agents := &agents{hosts: l.Hosts, tls: tlsConfig}
	s := &Store{
		prefix: l.Prefix + "/", beacon: l.Prefix + ".index",
		transport: &http.Transport{
			DialContext:         agents.dial,
			DialTLSContext:      agents.dialTLS,
			MaxIdleConnsPerHost: 8,
			IdleConnTimeout:     idleTimeout,
		},
	}
	config := api.DefaultConfig()
	config.Address, config.Scheme, config.Token = l.Hosts[0], "http", l.Password
	config.HttpClient = &http.Client{Transport: s.transport}
	if tlsConfig != nil {
		config.Scheme = "https"
	}
	if l.User != "" {
		config.HttpAuth = &api.HttpBasicAuth{Username: l.User, Password: l.Password} // of a proxy in front of it
	}
	if s.client, err = api.NewClient(config); err != nil {
		return nil, err
	}
	s.closeCtx, s.close = context.WithCancel(context.Background())
	return s, nil
}

// agents are the hosts of a URL. The client library knows one.
type agents struct {
	hosts []string
	tls   *tls.Config
	good  atomic.Uint32 // index of the one that was reached last
}

func (a *agents) each(
	ctx context.Context,
	dial func(ctx context.Context, host string) (net.Conn, error),
) (net.Conn, error) {
	var all []error
	first := int(a.good.Load())
	for i := range a.hosts {
		n := (first + i) % len(a.hosts)
		limited, cancel := context.WithTimeout(ctx, dialTimeout)
		conn, err := dial(limited, a.hosts[n])
		cancel()
		if err == nil {
			a.good.Store(uint32(n))
			return conn, nil
		}
		all = append(all, err)
	}
	return nil, errors.Join(all...)
}

func (a *agents) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return a.each(ctx, func(ctx context.Context, host string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, host)
	})
}

func (a *agents) dialTLS(ctx context.Context, network, _ string) (net.Conn, error) {
	return a.each(ctx, func(ctx context.Context, host string) (net.Conn, error) {
		return (&tls.Dialer{Config: a.tls}).DialContext(ctx, network, host)
	})
}

func query(ctx context.Context) *api.QueryOptions   { return new(api.QueryOptions).WithContext(ctx) }
func writing(ctx context.Context) *api.WriteOptions { return new(api.WriteOptions).WithContext(ctx) }

// fail is an error in kv's terms.
func fail(err error) error {
	var status api.StatusError
	if !errors.As(err, &status) {
		return err
	}
	text := fmt.Errorf("%s (status %d)", strings.TrimSpace(status.Body), status.Code)
	// 429: too many requests; it may be asked again.
	if status.Code >= 400 && status.Code < 500 && status.Code != http.StatusTooManyRequests {
		return &kv.RefusedError{Err: text}
	}
	return text
}

// Get implements kv.Store.
func (s *Store) Get(ctx context.Context, key string) (kv.Pair, error) {
	q := query(ctx)
	q.RequireConsistent = true
	p, _, err := s.client.KV().Get(s.prefix+key, q)
	switch {
	case err != nil:
		return kv.Pair{}, fail(err)
	case p == nil:
		return kv.Pair{}, kv.ErrNotFound
	}
	return kv.Pair{Key: key, Value: p.Value, Revision: kv.Revision(p.ModifyIndex)}, nil
}

// Put implements kv.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, is kv.Revision, on kv.Lease) error {
	if on != nil {
		return s.lock(ctx, key, value, is, on.(*lease))
	}
	p := &api.KVPair{Key: s.prefix + key, Value: value, ModifyIndex: uint64(is)} // 0: only where there is none
	if is == kv.Whatever {
		_, err := s.client.KV().Put(p, writing(ctx))
		return fail(err)
	}
	done, _, err := s.client.KV().CAS(p, writing(ctx))
	if err == nil && !done {
		return kv.ErrConflict
	}
	return fail(err)
}

// lock writes a key that goes with a session. The key may be another session's: that one's is deleted first.
func (s *Store) lock(ctx context.Context, key string, value []byte, is kv.Revision, l *lease) error {
	op := func(op api.KVTxnOp) *api.TxnOp {
		op.Key = s.prefix + key
		return &api.TxnOp{KV: &op}
	}
	var ops api.TxnOps
	switch is {
	case kv.Whatever:
		ops = append(ops, op(api.KVTxnOp{Verb: api.KVDelete}))
	case kv.Absent:
		ops = append(ops, op(api.KVTxnOp{Verb: api.KVCheckNotExists}))
	default:
		ops = append(
			ops,
			op(api.KVTxnOp{Verb: api.KVCheckIndex, Index: uint64(is)}),
			op(api.KVTxnOp{Verb: api.KVDelete}),
		)
	}
	ops = append(ops, op(api.KVTxnOp{Verb: api.KVLock, Value: value, Session: l.id}))
	done, answer, _, err := s.client.Txn().Txn(ops, query(ctx))
	switch {
	case err != nil:
		return fail(err)
	case done:
		return nil
	case is != kv.Whatever && len(answer.Errors) > 0 && answer.Errors[0].OpIndex == 0:
		return kv.ErrConflict
	case len(answer.Errors) > 0:
		return errors.New(answer.Errors[0].What)
	}
	return errors.New("a transaction was rolled back")
}

// Delete implements kv.Store.
func (s *Store) Delete(ctx context.Context, key string, is kv.Revision) error {
	if is == kv.Whatever {
		_, err := s.client.KV().Delete(s.prefix+key, writing(ctx))
		return fail(err)
	}
	done, _, err := s.client.KV().DeleteCAS(&api.KVPair{Key: s.prefix + key, ModifyIndex: uint64(is)}, writing(ctx))
	if err != nil || done {
		return fail(err)
	}
	if _, gone := s.Get(ctx, key); errors.Is(gone, kv.ErrNotFound) {
		return nil
	}
	return kv.ErrConflict
}

// Close implements kv.Store.
func (s *Store) Close() error {
	s.close()
	s.keepers.Wait()
	s.transport.CloseIdleConnections()
	return nil
}
