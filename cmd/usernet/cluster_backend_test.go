package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usernet/usernet/overlay/cluster"
	"github.com/usernet/usernet/overlay/gossip"
	"github.com/usernet/usernet/overlay/kv"
)

// countedStore counts how often it was closed.
type countedStore struct {
	kv.Store
	closed *int
}

func (s countedStore) Close() error {
	*s.closed++
	return nil
}

func TestASharedStoreIsOpenedOnceAndClosedAtTheEnd(t *testing.T) {
	opened, closed := 0, 0
	broken := errors.New("no program can be started")
	s := &sharedStore{open: func() (kv.Store, error) {
		if opened++; opened == 1 {
			return nil, broken
		}
		return countedStore{closed: &closed}, nil
	}}
	if err := s.release(); err != nil || opened != 0 {
		t.Errorf("released before it was opened: %v, opened %d times", err, opened)
	}
	if _, err := s.get(); !errors.Is(err, broken) {
		t.Errorf("a store that does not open: %v", err)
	}
	for range 2 { // two identities, one after the other
		store, err := s.get()
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Close(); err != nil || closed != 0 {
			t.Errorf("a backend closed it: %v, %d times", err, closed)
		}
	}
	for range 2 {
		if err := s.release(); err != nil {
			t.Error(err)
		}
	}
	if opened != 2 || closed != 1 {
		t.Errorf("opened %d times, closed %d times", opened, closed)
	}
}

func TestHostsToJoinAreChecked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(gossip.NewKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	for join, want := range map[string]string{
		"192.0.2.1":           "192.0.2.1:7946",
		"192.0.2.1:7000":      "192.0.2.1:7000",
		"host.example":        "host.example:7946",
		"2001:db8::1":         "[2001:db8::1]:7946",
		"[2001:db8::1]":       "[2001:db8::1]:7946",
		"[2001:db8::1]:7000":  "[2001:db8::1]:7000",
		"192.0.2.1:frob":      "",
		"192.0.2.1:0":         "",
		"192.0.2.1:99999":     "",
		"":                    "",
		"http://192.0.2.1":    "",
		"etcd://192.0.2.1/ab": "",
	} {
		o := clusterOptions{join: []string{join}, key: file}
		var cfg cluster.Config
		_, err := o.gossip(&cfg, slog.New(slog.DiscardHandler))
		switch {
		case want == "":
			if err == nil || !strings.Contains(err.Error(), "--cluster-join") {
				t.Errorf("%q: %v, hosts %q", join, err, cfg.Towards)
			}
		case err != nil || len(cfg.Towards) != 1 || cfg.Towards[0] != want:
			t.Errorf("%q: hosts %q, want %q: %v", join, cfg.Towards, want, err)
		}
	}
}
