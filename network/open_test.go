package network

import (
	"sync"
	"testing"
)

// stores are the stores of the tests, by path, so that one can be opened again.
var stores sync.Map

func storeAt(path string) *MemoryStore {
	s, _ := stores.LoadOrStore(path, NewMemoryStore())
	return s.(*MemoryStore)
}

// openAt opens the model that was stored under path.
func openAt(path string, opts Options) (*Model, error) { return Open(storeAt(path), opts) }

func open(t *testing.T, path string) *Model {
	t.Helper()
	m, err := openAt(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}
