package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/usernet/usernet/internal/watchdog"
)

// Options say what the model cannot know by itself.
type Options struct {
	// HostRoutes returns the subnets the host routes; default pools keep away from them. Nil: none.
	HostRoutes func() []netip.Prefix
	// DefaultIPv6 gives new networks IPv6 unless they say otherwise.
	DefaultIPv6 bool
	// Allocators reserve the addresses of networks, by the names of their drivers. For others the model chooses
	// addresses.
	Allocators map[string]Allocator
}

// Model is the stored state. Its methods may be called at the same time. Make it with Open.
//
// A change is made in three steps: it is computed from what the model has, which only writers change; stored; and then
// shown to readers. They never wait for the disk.
type Model struct {
	opts  Options
	store Store
	ula   netip.Prefix // the installation's /48; never changes

	writing  sync.Mutex // held by each change from its beginning to its end; its holder may read the records below
	revision Revision   // of the store, as the records have it; guarded by writing

	mu sync.RWMutex // guards the records, for readers; held for moments
	*records
}

// Open opens what is in a store, which the model owns from then on, and makes the networks bridge, host and none where
// they are missing. Where it fails the store stays the caller's.
func Open(store Store, opts Options) (*Model, error) {
	m := &Model{opts: opts, store: store, records: newRecords()}
	err := m.update(func() error {
		_, err := m.store.Update(context.Background(), func(tx Tx) error {
			if err := migrate(tx); err != nil {
				return err
			}
			return m.loadULA(tx)
		})
		return err
	})
	if err == nil {
		err = m.update(func() error {
			if err := m.refresh(); err != nil {
				return err
			}
			return m.predefine()
		})
	}
	if err != nil {
		return nil, m.explained(err)
	}
	return m, nil
}

// explained has the store say what to do about records that make no sense, where it can.
func (m *Model) explained(err error) error {
	var record *RecordError
	if s, ok := m.store.(interface{ Damaged(cause error) error }); ok && errors.As(err, &record) {
		return s.Damaged(err)
	}
	return err
}

// Close closes the store.
func (m *Model) Close() error {
	m.writing.Lock()
	defer m.writing.Unlock()
	return m.store.Close()
}

// Locks are what has to be watched for hanging; that of changes is held while the disk writes, for bound at most.
func (m *Model) Locks(bound time.Duration) []watchdog.Lock {
	return []watchdog.Lock{watchdog.Mutex("store", &m.writing, bound), watchdog.RWMutex("model", &m.mu, 0)}
}

// loadULA reads the installation's /48, or draws one (RFC 4193, 3.2.2: fd and 40 random bits).
func (m *Model) loadULA(tx Tx) error {
	if v := tx.Get(bucketMeta, keyULA); v != nil {
		p, err := netip.ParsePrefix(string(v))
		if err != nil || p.Bits() != 48 || !p.Addr().Is6() {
			return &RecordError{bucketMeta, keyULA, fmt.Errorf("the prefix of IPv6 networks is %q", v)}
		}
		m.ula = p
		return nil
	}
	b := [16]byte{0xfd}
	if _, err := rand.Read(b[1:6]); err != nil {
		return err
	}
	m.ula = netip.PrefixFrom(netip.AddrFrom16(b), 48)
	return tx.Put(bucketMeta, keyULA, []byte(m.ula.String()))
}

func (m *Model) predefine() error {
	for _, d := range Drivers {
		if _, err := m.findNetwork(d.Predefined); err == nil || d.Predefined == "" {
			continue
		}
		n := &Network{Name: d.Predefined, Driver: d.Name}
		if d.Interfaces {
			if _, err := m.addPools(n, NetworkSpec{}); err != nil {
				return err
			}
		}
		n.EnableIPv4 = true
		if err := m.insertNetwork(n); err != nil {
			return err
		}
	}
	return nil
}

func newID() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // crypto/rand does not fail (Go 1.24)
	return hex.EncodeToString(b)
}
