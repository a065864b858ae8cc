package kvtest

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay/kv"
)

func testRevisions(t *testing.T, target Target) {
	s := target.open(t)
	if err := absent(testCtx(t), s, "hosts/a"); err != nil {
		t.Fatal(err)
	}
	put(t, s, "hosts/a", "1", 7, kv.ErrConflict) // not there
	put(t, s, "hosts/a", "1", kv.Absent, nil)
	first := get(t, s, "hosts/a", "1").Revision
	put(t, s, "hosts/a", "2", kv.Absent, kv.ErrConflict)
	put(t, s, "hosts/a", "2", first+1, kv.ErrConflict)
	put(t, s, "hosts/a", "2", first, nil)
	second := get(t, s, "hosts/a", "2").Revision
	if second == first || first == kv.Absent {
		t.Fatalf("revision %d after %d", second, first)
	}
	put(t, s, "hosts/a", "3", kv.Whatever, nil)
	put(t, s, "hosts/b", "4", kv.Whatever, nil)

	ctx := testCtx(t)
	if err := s.Delete(ctx, "hosts/a", second); !errors.Is(err, kv.ErrConflict) {
		t.Fatalf("delete by an old revision: %v", err)
	}
	get(t, s, "hosts/a", "3")
	if err := s.Delete(ctx, "hosts/a", get(t, s, "hosts/a", "3").Revision); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "hosts/b", kv.Whatever); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"hosts/a", "hosts/b"} {
		if err := absent(ctx, s, key); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(ctx, key, kv.Whatever); err != nil {
			t.Fatalf("delete of what is not there: %v", err)
		}
		if err := s.Delete(ctx, key, second); err != nil {
			t.Fatalf("delete by revision of what is not there: %v", err)
		}
	}
	// A key that is made again is not the one that was deleted, however often that was changed.
	put(t, s, "hosts/a", "5", kv.Absent, nil)
	put(t, s, "hosts/a", "6", first, kv.ErrConflict)
	put(t, s, "hosts/a", "6", second, kv.ErrConflict)
	get(t, s, "hosts/a", "5")
}

func testClaims(t *testing.T, target Target) {
	const hosts, keys = 4, 12
	var stores []kv.Store
	for range hosts {
		stores = append(stores, target.open(t))
	}
	var won [keys]atomic.Int32
	var all sync.WaitGroup
	for h, s := range stores {
		all.Go(func() {
			for k := range keys {
				err := s.Put(testCtx(t), "blocks/n/"+strconv.Itoa(k), []byte(strconv.Itoa(h)), kv.Absent, nil)
				if err == nil {
					won[k].Add(1)
				} else if !errors.Is(err, kv.ErrConflict) {
					t.Errorf("claim: %v", err)
				}
			}
		})
	}
	all.Wait()
	for k := range won {
		if n := won[k].Load(); n != 1 {
			t.Errorf("key %d was given to %d hosts", k, n)
		}
	}
}

// testCounter has one host delete the counter's key now and then as well, carrying its value over: a store whose
// revisions begin again with a new key would lose counts. Two hosts could not do that, since to delete what is gone
// already is no conflict.
func testCounter(t *testing.T, target Target) {
	const hosts, each = 3, 15
	put(t, target.open(t), "vnis/1", "0", kv.Absent, nil)
	var all sync.WaitGroup
	for host := range hosts {
		s := target.open(t)
		all.Go(func() {
			for done := 0; done < each; {
				p, err := s.Get(testCtx(t), "vnis/1")
				if errors.Is(err, kv.ErrNotFound) {
					continue
				}
				if err != nil {
					t.Errorf("get: %v", err)
					return
				}
				n, _ := strconv.Atoi(string(p.Value))
				again := func() error {
					if host != 0 || done%4 != 3 {
						return s.Put(testCtx(t), "vnis/1", []byte(strconv.Itoa(n+1)), p.Revision, nil)
					}
					if err := s.Delete(testCtx(t), "vnis/1", p.Revision); err != nil {
						return err
					}
					return s.Put(testCtx(t), "vnis/1", []byte(strconv.Itoa(n+1)), kv.Absent, nil)
				}
				switch err := again(); {
				case err == nil:
					done++
				case !errors.Is(err, kv.ErrConflict):
					t.Errorf("compare-and-set: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	get(t, target.open(t), "vnis/1", strconv.Itoa(hosts*each))
}

func testNames(t *testing.T, target Target) {
	s := target.open(t)
	keys := []string{
		"alive/00112233445566778899aabbccddeeff",
		"netnames/web%2Ffront%20end",
		"netnames/%C3%BC..",
		"netnames/" + strings.Repeat("%C3", 255),
		"pools/10.0.0.0-24",
		"pools/fd00:1::-64",
		"eps/" + strings.Repeat("ab", 32) + "/fd00::1",
		"eps/" + strings.Repeat("ab", 32) + "/10.0.0.2",
		"eps/" + strings.Repeat("cd", 32) + "/10.0.0.2",
	}
	for i, key := range keys {
		put(t, s, key, strings.Repeat("\x00\xffé\n", 300)+strconv.Itoa(i), kv.Absent, nil)
	}
	for i, key := range keys {
		get(t, s, key, strings.Repeat("\x00\xffé\n", 300)+strconv.Itoa(i))
	}
	have := watch(t, target.open(t))
	for i, key := range keys {
		have.waitFor(t, key, strings.Repeat("\x00\xffé\n", 300)+strconv.Itoa(i))
	}
}

func testContext(t *testing.T, target Target) {
	s := target.open(t)
	ctx, cancel := context.WithCancel(testCtx(t))
	cancel()
	if _, err := s.Get(ctx, "hosts/a"); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v", err)
	}
	if err := s.Put(ctx, "hosts/a", nil, kv.Whatever, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v", err)
	}
	if _, err := s.Lease(ctx, target.MinTTL); err == nil {
		t.Error("a lease was made")
	}
	watchCtx, stop := context.WithCancel(testCtx(t))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e, err := range s.Watch(watchCtx) {
			if err == nil && e.Kind == kv.EventList {
				stop()
			}
		}
	}()
	select {
	case <-ended:
	case <-time.After(Patience):
		t.Error("the watch goes on")
	}
	stop()
}
