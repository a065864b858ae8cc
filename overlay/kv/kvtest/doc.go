// Package kvtest checks that a kv.Store does what package kv expects: Run for each store, with the real server where
// there is one.
//
// Nothing in it depends on how fast a server is: it waits for what has to come, and fails after Patience.
package kvtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay/kv"
)

// Patience is how long something may take that has to happen.
const Patience = 60 * time.Second

// Target is a server to test against. What it cannot do is nil, and the tests that need it are left out.
type Target struct {
	// Open connects a host, to keys of the test's own. The test closes the store.
	Open func(t *testing.T) kv.Store
	// Kill ends the server as a crash does, and Start starts it again with its data.
	Kill, Start func(t *testing.T)
	// Hang stops the server from answering, while connections stay, and Resume ends that.
	Hang, Resume func(t *testing.T)
	// Compact has the server forget the past of its keys.
	Compact func(t *testing.T)
	// Backup copies the server's data, and Restore replaces it by the last copy.
	Backup, Restore func(t *testing.T)
	// MinTTL is the shortest lease that the server makes.
	MinTTL time.Duration
}

// Run runs all tests.
func Run(t *testing.T, target Target) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Target)
		need bool
	}{
		{"a key is written and deleted by its revision only", testRevisions, true},
		{"of many claims one wins", testClaims, true},
		{"no change by compare-and-set is lost", testCounter, true},
		{"a watch lists and then follows", testWatch, true},
		{"a watch misses nothing while its reader is slow", testSlowReader, true},
		{"keys and values come back as they were written", testNames, true},
		{"a revoked lease takes its keys", testRevoke, true},
		{"a lease ends with its process", testExpiry, true},
		{"a key that was written again does not go with the first lease", testTakenOver, true},
		{"calls end with their context", testContext, true},
		{"a compacted watch ends or goes on", testCompaction, target.Compact != nil},
		{"a killed server is an error, and comes back with its keys", testKilled, target.Kill != nil},
		{"a server that hangs is noticed", testHangs, target.Hang != nil},
		{"a backend heals when the server is back", testBackendHeals, target.Kill != nil},
		{"a restored backup is noticed", testRestored, target.Restore != nil},
	} {
		if test.need {
			t.Run(test.name, func(t *testing.T) { test.run(t, target) })
		}
	}
}

// ctx is a context that ends long before the test does.
func testCtx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*Patience)
	t.Cleanup(cancel)
	return ctx
}

func (target Target) open(t *testing.T) kv.Store {
	t.Helper()
	s := target.Open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// until polls a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", Patience, what)
		}
	}
}

// retry makes a call until it works: a server that was started again elects its leader first.
func retry(t *testing.T, what string, call func(context.Context) error) {
	t.Helper()
	var err error
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(testCtx(t), 3*time.Second)
		err = call(ctx)
		cancel()
		if err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func put(t *testing.T, s kv.Store, key, value string, is kv.Revision, want error) {
	t.Helper()
	if err := s.Put(testCtx(t), key, []byte(value), is, nil); !errors.Is(err, want) {
		t.Fatalf("Put(%q, %q, revision %d): %v; want %v", key, value, is, err, want)
	}
}

func get(t *testing.T, s kv.Store, key, want string) kv.Pair {
	t.Helper()
	p, err := s.Get(testCtx(t), key)
	if err != nil || string(p.Value) != want || p.Key != key {
		t.Fatalf("Get(%q): %q %q, %v; want %q", key, p.Key, p.Value, err, want)
	}
	return p
}

func absent(ctx context.Context, s kv.Store, key string) error {
	p, err := s.Get(ctx, key)
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%q is there: %q", key, p.Value)
}
