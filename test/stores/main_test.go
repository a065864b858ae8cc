package stores

import (
	"os"
	"testing"
)

// TestMain runs nothing without USERNET_STORES, which scripts/test.sh --stores sets: the servers are not on every
// machine.
func TestMain(m *testing.M) {
	if os.Getenv("USERNET_STORES") == "" {
		os.Exit(0)
	}
	os.Exit(m.Run())
}
