package overlay

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// patience is how long a test waits for something that happens at once on a machine with nothing else to do.
// commandLimit ends a program that waits for ever.
const (
	patience     = 90 * time.Second
	commandLimit = 4 * time.Minute
)

// Set in TestMain for all tests.
var (
	usernet string // the binary under test
	helper  string // the helper program, static
)

func TestMain(m *testing.M) {
	bin := os.Getenv("USERNET_OVERLAY")
	if bin == "" {
		fmt.Println("overlay: the hosts that these tests need are made by `make overlay`, as root; nothing was run")
		return
	}
	usernet, helper = filepath.Join(bin, "usernet"), filepath.Join(bin, "helper")
	os.Exit(m.Run())
}

// eventually calls check until it returns nil, and fails the test with its last error when that takes longer than
// patience.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	within(t, patience, check)
}

// within is eventually with another limit.
func within(t testing.TB, limit time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // between two looks; nothing depends on its length
	}
}
