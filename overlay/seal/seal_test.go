package seal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/usernet/usernet/overlay"
)

func TestKeysDiffer(t *testing.T) {
	if a, b := NewKey(), NewKey(); a == b || a.Public() == b.Public() || Addr(a.Public()) == Addr(b.Public()) {
		t.Error("two keys, or what follows from them, are the same")
	}
}

func TestPins(t *testing.T) {
	dir := t.TempDir()
	p, err := LoadPins(dir)
	if err != nil {
		t.Fatal(err)
	}
	first, second := NewKey().Public(), NewKey().Public()
	const a, b overlay.HostID = "a", "b"
	good, errs := p.Check(map[overlay.HostID]overlay.Key{a: first, b: {}})
	if len(errs) != 0 || len(good) != 1 || good[a] != first {
		t.Fatalf("at first sight: %v, %v", good, errs)
	}
	if p, err = LoadPins(dir); err != nil {
		t.Fatal(err)
	}
	good, errs = p.Check(map[overlay.HostID]overlay.Key{a: second})
	var changed *ChangedKeyError
	if len(good) != 0 || len(errs) != 1 || !errors.As(errs[0], &changed) || changed.Had != first || changed.Has !=
		second {
		t.Errorf("with another key: %v, %v", good, errs)
	}
	if err := p.Forget(a); err != nil {
		t.Fatal(err)
	}
	if good, errs = p.Check(map[overlay.HostID]overlay.Key{a: second}); len(errs) != 0 || good[a] != second {
		t.Errorf("after it was forgotten: %v, %v", good, errs)
	}
	if err := os.WriteFile(filepath.Join(dir, pinFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPins(dir); err == nil {
		t.Error("a damaged file is taken")
	}
}

// TestPinsThatCannotBeWritten do not count: after a restart the host could come with another key.
func TestPinsThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	p, err := LoadPins(dir)
	if err != nil {
		t.Fatal(err)
	}
	if good, errs := p.Check(map[overlay.HostID]overlay.Key{"a": NewKey().Public()}); len(good) != 0 || len(errs) != 1 {
		t.Errorf("%v, %v", good, errs)
	}
}

func TestRoom(t *testing.T) {
	// 1500 less IPv4 and UDP leaves 1472; WireGuard's 32 and the padding, IPv6 and UDP inside leave 1392 for VXLAN.
	if n := Room(1472); n != 1392 {
		t.Errorf("%d bytes", n)
	}
	if n := Room(1471); n != 1376 {
		t.Errorf("%d bytes where the padding does not fit", n)
	}
}
