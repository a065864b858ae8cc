package main

import (
	"errors"
	"testing"

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
