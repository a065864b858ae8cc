// Package etcd is a kv.Store by etcd's version 3 API (etcd 3.4 and later) and its official client.
//
// Compare-and-set is by ModRevision, which no two changes of a store share. A watch begins at the revision of its list;
// the client library resumes it over lost connections, other members and leader elections. It does not notice a backup
// that was restored: a watch would wait for revisions that are long in the future. So every answer's revision is
// compared with what was seen before, and a lower one ends the watch.
//
// The client costs 2.7 ms at the start of a program (package initialisation of protobuf and gRPC), so usernet has it in
// a program of its own: cmd/usernet-etcd, and package remote.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/table"
)

const (
	// A connection is given up when a ping of HTTP/2 has no answer for pingTimeout; etcd refuses more than one in 5 s.
	pingEvery   = 10 * time.Second
	pingTimeout = 5 * time.Second
	// Reads that met an election or a broken connection are made again so often, after waits that add up to a second.
	maxTries = 10
	tryWait  = 50 * time.Millisecond
	// pageSize is how many keys one call lists.
	pageSize = 1000
)

// Store is a kv.Store. New makes one.
type Store struct {
	prefix string
	config clientv3.Config

	// connecting has one token: its holder may set client. With a user, making one asks for a token, which takes
	// time.
	connecting chan struct{}

	// keepers read the answers to leases' keepalives until closeCtx is done.
	keepers  sync.WaitGroup
	closeCtx context.Context
	close    context.CancelFunc

	mu      sync.Mutex // guards what follows
	client  *clientv3.Client
	closed  bool
	seen    kv.State
	rewound chan struct{} // closed, and another made, when the server's state is older than what was seen
}

var _ kv.Store = (*Store)(nil)

// New makes a store. It does not connect yet.
func New(l kv.Location) (*Store, error) {
	tlsConfig, err := l.TLSConfig()
	if err != nil {
		return nil, err
	}
	scheme := "http://"
	if tlsConfig != nil {
		scheme = "https://"
	}
	config := clientv3.Config{
		DialTimeout: table.CallTimeout, DialKeepAliveTime: pingEvery, DialKeepAliveTimeout: pingTimeout,
		TLS: tlsConfig, Username: l.User, Password: l.Password, Logger: zap.NewNop(),
		MaxUnaryRetries: maxTries, BackoffWaitBetween: tryWait,
		// etcd's client waits for a connection as long as the call may take, and then does not say why there was none.
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(failFast)},
	}
	for _, host := range l.Hosts {
		config.Endpoints = append(config.Endpoints, scheme+host)
	}
	s := &Store{
		prefix: "/" + l.Prefix + "/", config: config,
		connecting: make(chan struct{}, 1), rewound: make(chan struct{}),
	}
	s.closeCtx, s.close = context.WithCancel(context.Background())
	return s, nil
}

// failFast has a call fail with the reason when no member can be connected to.
func failFast(
	ctx context.Context,
	method string,
	req, reply any,
	cc *grpc.ClientConn,
	invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	return invoke(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
}

// connect is the client, made if there is none.
func (s *Store) connect(ctx context.Context) (*clientv3.Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case s.connecting <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.connecting }()
	s.mu.Lock()
	client, closed := s.client, s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return nil, errors.New("the store is closed")
	case client != nil:
		return client, nil
	}
	client, err := clientv3.New(s.config)
	if err != nil {
		return nil, s.fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(errors.New("the store is closed"), client.Close())
	}
	s.client = client
	return client, nil
}

// call is connect with the state that was seen before the call.
func (s *Store) call(ctx context.Context) (*clientv3.Client, kv.State, error) {
	client, err := s.connect(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	return client, s.seen, err
}

// observe compares an answer with what was seen before its call, and returns the state that it tells.
func (s *Store) observe(before kv.State, h *pb.ResponseHeader) kv.State {
	state := kv.State{ID: strconv.FormatUint(h.GetClusterId(), 16), Revision: uint64(h.GetRevision())}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case before != (kv.State{}) && s.seen == before && (state.ID != before.ID || state.Revision < before.Revision):
		close(s.rewound)
		s.rewound = make(chan struct{})
		s.seen = state
	case state.Revision > s.seen.Revision:
		s.seen = state
	}
	return state
}

// fail is an error in kv's terms, without what gRPC puts around it.
func (s *Store) fail(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	var own rpctypes.EtcdError
	code, text := codes.Unknown, err.Error()
	if errors.As(err, &own) {
		code, text = own.Code(), own.Error()
	} else if st, ok := status.FromError(err); ok {
		code, text = st.Code(), st.Message()
	}
	switch code {
	case codes.InvalidArgument,
		codes.PermissionDenied,
		codes.Unauthenticated,
		codes.FailedPrecondition,
		codes.ResourceExhausted:
		return &kv.RefusedError{Err: errors.New(text)}
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w", text, context.DeadlineExceeded)
	case codes.Canceled:
		return fmt.Errorf("%s: %w", text, context.Canceled)
	}
	return errors.New(text)
}

// Get implements kv.Store.
func (s *Store) Get(ctx context.Context, key string) (kv.Pair, error) {
	client, before, err := s.call(ctx)
	if err != nil {
		return kv.Pair{}, err
	}
	r, err := client.Get(ctx, s.prefix+key)
	if err != nil {
		return kv.Pair{}, s.fail(err)
	}
	s.observe(before, r.Header)
	if len(r.Kvs) == 0 {
		return kv.Pair{}, kv.ErrNotFound
	}
	return kv.Pair{Key: key, Value: r.Kvs[0].Value, Revision: kv.Revision(r.Kvs[0].ModRevision)}, nil
}

// Put implements kv.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, is kv.Revision, on kv.Lease) error {
	var opts []clientv3.OpOption
	if on != nil {
		opts = append(opts, clientv3.WithLease(on.(*lease).id))
	}
	return s.change(ctx, s.prefix+key, is, clientv3.OpPut(s.prefix+key, string(value), opts...))
}

// Delete implements kv.Store.
func (s *Store) Delete(ctx context.Context, key string, is kv.Revision) error {
	err := s.change(ctx, s.prefix+key, is, clientv3.OpDelete(s.prefix+key))
	if errors.Is(err, kv.ErrConflict) {
		if _, gone := s.Get(ctx, key); errors.Is(gone, kv.ErrNotFound) {
			return nil
		}
	}
	return err
}

// change does what it is given if a key has a revision.
func (s *Store) change(ctx context.Context, key string, is kv.Revision, op clientv3.Op) error {
	client, before, err := s.call(ctx)
	if err != nil {
		return err
	}
	txn := client.Txn(ctx)
	if is != kv.Whatever {
		txn = txn.If(clientv3.Compare(clientv3.ModRevision(key), "=", int64(is))) // 0 where there is no key
	}
	r, err := txn.Then(op).Commit()
	if err != nil {
		return s.fail(err)
	}
	s.observe(before, r.Header)
	if !r.Succeeded {
		return kv.ErrConflict
	}
	return nil
}

// Close implements kv.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	client := s.client
	s.client, s.closed = nil, true
	s.mu.Unlock()
	s.close()
	s.keepers.Wait()
	if client == nil {
		return nil
	}
	// The client's own context was cancelled, which it calls an error.
	if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
