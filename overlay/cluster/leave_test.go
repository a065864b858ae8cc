package cluster

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/overlay/seal"
	"github.com/usernet/usernet/overlay/table/tabletest"
)

// TestAHostThatWasMadeAnewIsTakenAgain has host b come with another key: a and c refuse it until leave is called on
// each of them, b is heard of or not, and its records are there or another host has taken them away.
func TestAHostThatWasMadeAnewIsTakenAgain(t *testing.T) {
	hub := tabletest.NewHub()
	dir := t.TempDir()
	a, c := member(t, hub, "a"), member(t, hub, "c")
	var b *Cluster
	again := func() {
		t.Helper()
		if b != nil {
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "identity.json")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			key := regexp.MustCompile(`"private_key": *"[^"]*"`)
			drawn := seal.NewKey()
			drawnText := base64.StdEncoding.EncodeToString(drawn[:])
			other := key.ReplaceAllLiteral(text, []byte(`"private_key":"`+drawnText+`"`))
			if string(other) == string(text) {
				t.Fatalf("no key in %s", text)
			}
			if err := os.WriteFile(file, other, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b = memberIn(t, hub, "b", dir, nil)
	}
	again()
	id := string(b.Identity().ID)
	seen := func(by *Cluster) HostStatus {
		for _, h := range by.Status().Hosts {
			if string(h.ID) == id {
				return h
			}
		}
		return HostStatus{}
	}
	for _, by := range []*Cluster{a, c} {
		until(t, "b is known", func() bool { return seen(by).State == stateUp && len(by.pins.Find(id)) == 1 })
	}

	again()
	for _, by := range []*Cluster{a, c} {
		until(t, "the key is refused", func() bool { return seen(by).KeyRefused })
		if err := by.Leave(t.Context(), id, false); err != nil {
			t.Fatalf("leave of a host that is heard of, whose key is refused: %v", err)
		}
		until(t, "the key counts", func() bool { return len(by.pins.Find(id)) == 1 && !seen(by).KeyRefused })
	}

	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "b is down", func() bool { return seen(a).State == stateDown })
	if err := a.Leave(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	until(t, "b is in c's table no more", func() bool { return seen(c).ID == "" })
	if err := c.Leave(t.Context(), id[:12], false); err != nil {
		t.Errorf("leave of a host whose records another host has taken away: %v", err)
	}
	if err := c.Leave(t.Context(), id, false); errdefs.Class(err) != errdefs.ErrNotFound ||
		!strings.Contains(err.Error(), id) {
		t.Errorf("leave of a host that nothing is known of: %v", err)
	}
	again()
	for _, by := range []*Cluster{a, c} {
		until(t, "b is known again", func() bool { return seen(by).State == stateUp && len(by.pins.Find(id)) == 1 })
		if seen(by).KeyRefused {
			t.Error("its key is refused")
		}
	}
}
