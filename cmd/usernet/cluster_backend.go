package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"

	"github.com/usernet/usernet/overlay/cluster"
	"github.com/usernet/usernet/overlay/gossip"
	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/kv/stores"
	records "github.com/usernet/usernet/overlay/table"
)

// config is how a daemon with these flags is a member of a cluster; nil: it is in none.
func (o *clusterOptions) config(log *slog.Logger) (*cluster.Config, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.store == "" && len(o.join) == 0 {
		return nil, nil
	}
	advertise, err := cluster.ParseAdvertise(o.advertise)
	if err != nil {
		return nil, fmt.Errorf("--cluster-advertise: %w", err)
	}
	name, err := os.Hostname()
	if err != nil {
		name = ""
	}
	cfg := &cluster.Config{Advertise: advertise, Name: name}
	for _, s := range o.accept {
		a, err := cluster.ParseAcceptedRoute(s)
		if err != nil {
			return nil, err
		}
		cfg.AcceptRoutes = append(cfg.AcceptRoutes, a)
	}
	if o.store == "" {
		return o.gossip(cfg, log)
	}
	return o.keyValue(cfg, log)
}

// keyValue joins by a key-value store.
func (o *clusterOptions) keyValue(cfg *cluster.Config, log *slog.Logger) (*cluster.Config, error) {
	options, err := storeOptions("cluster-store-opt", o.storeOpts)
	if err != nil {
		return nil, err
	}
	location, err := kv.Parse(o.store, options)
	if err != nil {
		return nil, err
	}
	cfg.Towards = location.Hosts
	shared := &sharedStore{open: func() (kv.Store, error) { return stores.Open(location) }}
	cfg.Release = shared.release
	cfg.Backend = func(id cluster.Identity, _ netip.Addr, _ gossip.Paths) (records.Backend, error) {
		store, err := shared.get()
		if err != nil {
			return nil, err
		}
		return kv.New(store, kv.Config{
			URL:         location.String(),
			Host:        id.ID,
			Incarnation: id.Incarnation,
			Log:         log,
		}), nil
	}
	return cfg, nil
}

// sharedStore is one store for all identities that a host has in a daemon's life: a confined daemon could not start a
// store's program again. Backends do not close it; release does, at the end of the membership.
type sharedStore struct {
	open func() (kv.Store, error)

	mu    sync.Mutex
	store kv.Store // nil: not opened, or released
}

// get opens the store when it is first asked for.
func (s *sharedStore) get() (kv.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		store, err := s.open()
		if err != nil {
			return nil, err
		}
		s.store = store
	}
	return unclosed{s.store}, nil
}

// release closes the store, if it was opened.
func (s *sharedStore) release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return nil
	}
	store := s.store
	s.store = nil
	return store.Close()
}

// unclosed is a store that others use too.
type unclosed struct{ kv.Store }

// Close implements kv.Store.
func (unclosed) Close() error { return nil }

// gossip joins by other hosts.
func (o *clusterOptions) gossip(cfg *cluster.Config, log *slog.Logger) (*cluster.Config, error) {
	text, err := os.ReadFile(o.key)
	if err != nil {
		return nil, fmt.Errorf("--cluster-key: %w", err)
	}
	keys, err := gossip.ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("--cluster-key %s: %w", o.key, err)
	}
	cfg.Scattered = true
	for _, h := range o.join {
		if _, err := netip.ParseAddr(h); err == nil { // IPv6 may come without brackets where it has no port
			h = net.JoinHostPort(h, strconv.Itoa(gossip.DefaultPort))
		}
		h, err := kv.WithPort(h, strconv.Itoa(gossip.DefaultPort))
		if err != nil {
			return nil, fmt.Errorf("--cluster-join: %w: give HOST[:PORT]", err)
		}
		cfg.Towards = append(cfg.Towards, h)
	}
	cfg.Backend = func(id cluster.Identity, addr netip.Addr, paths gossip.Paths) (records.Backend, error) {
		any := netip.IPv4Unspecified()
		if addr.Is6() {
			any = netip.IPv6Unspecified()
		}
		c := gossip.Config{
			Host: id.ID, Incarnation: id.Incarnation, Keys: keys, Seeds: cfg.Towards,
			Bind: netip.AddrPortFrom(any, gossip.DefaultPort), Advertise: netip.AddrPortFrom(addr, 0), Log: log,
			Paths: paths,
		}
		b, err := gossip.New(c)
		if errors.Is(err, syscall.EADDRINUSE) { // another user's daemon has it; the others learn the port by gossip
			c.Bind = netip.AddrPortFrom(any, 0)
			b, err = gossip.New(c)
		}
		if err != nil {
			return nil, err
		}
		return b, nil
	}
	return cfg, nil
}
