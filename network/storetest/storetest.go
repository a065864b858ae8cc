// Package storetest holds what every network.Store has to keep, for the tests of each.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/usernet/usernet/network"
)

// patience is how long a test waits for what happens at once on a machine with nothing else to do.
const patience = 30 * time.Second

// Run holds a store to the contract of network.Store. open makes an empty one.
func Run(t *testing.T, open func(t *testing.T) network.Store) {
	t.Run("histories", func(t *testing.T) { histories(t, open(t)) })
	t.Run("an update that fails changes nothing", func(t *testing.T) { failing(t, open(t)) })
	t.Run("a View changes nothing", func(t *testing.T) { viewing(t, open(t)) })
	t.Run("watching", func(t *testing.T) { watching(t, open(t)) })
	t.Run("changes far back are not known", func(t *testing.T) { compacted(t, open(t)) })
}

// content is all that a store has.
type content map[network.Bucket]map[string]string

func read(t *testing.T, s network.Store, buckets ...network.Bucket) (c content, r network.Revision) {
	t.Helper()
	c = content{}
	err := s.View(t.Context(), func(tx network.Tx) error {
		r = tx.Revision()
		for _, b := range buckets {
			c[b] = map[string]string{}
			last := ""
			err := tx.All(b, func(id string, value []byte) error {
				if id <= last {
					t.Errorf("%s comes after %s", id, last)
				}
				last = id
				c[b][id] = string(value)
				if got := tx.Get(b, id); string(got) != string(value) {
					t.Errorf("%s is %q and %q", id, got, value)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, r
}

// histories compares a store with maps after each of many random updates, some of which fail.
func histories(t *testing.T, s network.Store) {
	r := rand.New(rand.NewPCG(1, 2))
	buckets := []network.Bucket{"a", "b"}
	want := content{"a": {}, "b": {}}
	var revision network.Revision
	for step := range 150 {
		next := content{"a": maps.Clone(want["a"]), "b": maps.Clone(want["b"])}
		fail := r.IntN(4) == 0
		changed := false
		got, err := s.Update(t.Context(), func(tx network.Tx) error {
			if tx.Revision() != revision {
				t.Errorf("step %d: the revision is %d, want %d", step, tx.Revision(), revision)
			}
			for range r.IntN(6) {
				b, id := buckets[r.IntN(2)], fmt.Sprint(r.IntN(8))
				changed = true
				if r.IntN(3) == 0 {
					delete(next[b], id)
					if err := tx.Delete(b, id); err != nil {
						return err
					}
				} else {
					next[b][id] = fmt.Sprint(step)
					if err := tx.Put(b, id, []byte(next[b][id])); err != nil {
						return err
					}
				}
				if v, is := next[b][id]; string(tx.Get(b, id)) != v || (tx.Get(b, id) != nil) != is {
					t.Errorf("step %d: what was changed is not seen", step)
				}
			}
			if fail {
				return errFails
			}
			return nil
		})
		switch {
		case fail && !errors.Is(err, errFails), !fail && err != nil:
			t.Fatalf("step %d: %v", step, err)
		case fail || !changed:
			if got != revision {
				t.Errorf("step %d: nothing changed, and the revision went from %d to %d", step, revision, got)
			}
		case got <= revision:
			t.Errorf("step %d: the revision went from %d to %d", step, revision, got)
		}
		if !fail {
			want, revision = next, got
		}
		if have, at := read(t, s, buckets...); !maps.EqualFunc(have, want, maps.Equal) || at != revision {
			t.Fatalf("step %d: %v at %d, want %v at %d", step, have, at, want, revision)
		}
	}
}

var errFails = errors.New("no")

func put(t *testing.T, s network.Store, id, value string) network.Revision {
	t.Helper()
	r, err := s.Update(t.Context(), func(tx network.Tx) error { return tx.Put("a", id, []byte(value)) })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func failing(t *testing.T, s network.Store) {
	put(t, s, "x", "1")
	_, err := s.Update(t.Context(), func(tx network.Tx) error {
		return errors.Join(tx.Put("a", "x", []byte("2")), tx.Delete("a", "x"), errFails)
	})
	if have, _ := read(t, s, "a"); !errors.Is(err, errFails) || have["a"]["x"] != "1" {
		t.Errorf("%v, %v", have, err)
	}
}

func viewing(t *testing.T, s network.Store) {
	put(t, s, "x", "1")
	err := s.View(t.Context(), func(tx network.Tx) error {
		if tx.Get("a", "nothing") != nil || tx.Get("nowhere", "x") != nil {
			t.Error("there is what was never put")
		}
		if err := tx.Delete("a", "x"); !errors.Is(err, network.ErrReadOnly) {
			t.Errorf("deleted in a View: %v", err)
		}
		return tx.Put("a", "y", nil)
	})
	if have, _ := read(t, s, "a"); !errors.Is(err, network.ErrReadOnly) || len(have["a"]) != 1 {
		t.Errorf("%v, %v", have, err)
	}
}

func watching(t *testing.T, s network.Store) {
	before := put(t, s, "before", "1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var revisions []network.Revision
	seen := make(chan network.Change)
	go func() {
		defer close(seen)
		for c, err := range s.Watch(ctx, before) {
			if err != nil {
				return
			}
			seen <- c
		}
	}()
	for i := range 20 {
		revisions = append(revisions, put(t, s, fmt.Sprint(i), "v"))
	}
	last, err := s.Update(t.Context(),
		func(tx network.Tx) error { return errors.Join(tx.Put("a", "z", []byte("2")), tx.Delete("a", "0")) })
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range revisions {
		if c := <-seen; c.Revision != r || c.ID != fmt.Sprint(i) || string(c.Value) != "v" {
			t.Errorf("change %d is %+v, at revision %d", i, c, r)
		}
	}
	if put, gone := <-seen, <-seen; put.ID != "z" || gone.ID != "0" || gone.Value != nil || put.Revision != last ||
		gone.Revision != last {
		t.Errorf("%+v, %+v at revision %d", put, gone, last)
	}
	cancel()
	if c, more := <-seen; more {
		t.Errorf("after its end: %+v", c)
	}
}

func compacted(t *testing.T, s network.Store) {
	first := put(t, s, "x", "1")
	many := slices.Repeat([]string{"y"}, 6000)
	for chunk := range slices.Chunk(many, 100) {
		_, err := s.Update(t.Context(), func(tx network.Tx) error {
			for i := range chunk {
				if err := tx.Put("a", fmt.Sprint("y", i), nil); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for c, err := range s.Watch(t.Context(), first) {
		if !errors.Is(err, network.ErrCompacted) {
			t.Fatalf("%+v, %v", c, err)
		}
	}
}
