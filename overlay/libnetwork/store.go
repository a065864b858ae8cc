package libnetwork

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/usernet/usernet/overlay/kv"
)

// Store is what Docker's daemons keep their records in, by the keys that libkv gives them: words with slashes between
// them, and none at the ends. Its methods may be called at the same time, and return when their context is done.
type Store interface {
	// Get reads a key; ErrNotFound: there is none.
	Get(ctx context.Context, key string) (Pair, error)
	// List reads all keys below one, in no order; none is no error.
	List(ctx context.Context, dir string) ([]Pair, error)
	// Put writes a key if its index is still that; 0: if there is none. Else it is ErrConflict.
	Put(ctx context.Context, key string, value []byte, index uint64) error
	// Delete removes a key if its index is still that, else it is ErrConflict. A key that is gone is no error.
	Delete(ctx context.Context, key string, index uint64) error
	// Beat writes a key that goes ttl after it was last written, or with the session of this process.
	Beat(ctx context.Context, key, value string, ttl time.Duration) error
	// Watch calls changed after each change below a key, and when changes may have been missed, until ctx is done.
	// Changes that follow each other may be told of once.
	Watch(ctx context.Context, dir string, changed func())
	// Close frees what the store has here.
	Close() error
}

// Pair is a key with its value.
type Pair struct {
	Key   string
	Value []byte
	Index uint64 // grows with each change of the key; never 0
}

// Outcomes that callers decide on.
var (
	ErrNotFound = errors.New("no such key")
	ErrConflict = errors.New("the key has changed")
)

// Bounds of what is read from a store.
const (
	maxAnswer = 32 << 20 // bytes of one answer
	maxPairs  = 1 << 16  // keys below one
	maxValue  = 1 << 20  // bytes of one value
)

// errTooMuch is what an answer beyond the bounds ends with.
var errTooMuch = fmt.Errorf("the store has more than %d keys or %d bytes there", maxPairs, maxAnswer)

// ParseStore reads the URL of a store, as dockerd's --cluster-store has it, and the options of --cluster-store-opt:
//
//	etcd://HOST[:PORT][,HOST[:PORT]...][/PREFIX], zk://
func ParseStore(raw string, options map[string]string) (kv.Location, error) {
	l, err := kv.Parse(raw, options)
	if err != nil {
		return l, err
	}
	if l.Scheme != "etcd" && l.Scheme != "zk" {
		return l, fmt.Errorf("the networks of Docker's daemons are reached by etcd:// and zk://, not by %s://", l.Scheme)
	}
	_, rest, _ := strings.Cut(raw, "://")
	if named := strings.Contains(strings.TrimRight(rest, "/"), "/"); !named && l.Prefix == kv.DefaultPrefix {
		l.Prefix = "" // Docker's daemons have none
	}
	return l, nil
}

// OpenStore opens a store, and does not wait for it.
func OpenStore(l kv.Location) (Store, error) {
	if l.Scheme == "zk" {
		return newZooKeeper(l)
	}
	return newEtcd(l)
}

// within bounds calls to the store. Where the time is over, their error says so, with the time.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("no answer within %v", d))
}

// join makes a key.
func join(words ...string) string { return strings.Trim(path.Join(words...), "/") }
