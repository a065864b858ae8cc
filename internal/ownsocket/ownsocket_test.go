package ownsocket

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestWhatIsNoSocketStays: connections to a file are refused as those to a socket that nobody serves.
func TestWhatIsNoSocketStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "letter")
	if err := os.WriteFile(path, []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil {
		t.Error("a file was taken for a socket")
	}
	if err := Remove(path); err == nil {
		t.Error("a file was removed as a socket")
	}
	if b, _ := os.ReadFile(path); string(b) != "dear" {
		t.Errorf("the file is %q now", b)
	}
}

func TestASocketThatWasLeftIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for range 2 { // the second finds the first one's
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(path); !errors.Is(err, ErrServed) {
			t.Errorf("a socket that is served: %v", err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := Remove(path); err != nil {
		t.Error(err)
	}
	if err := Remove(path); err != nil {
		t.Errorf("where there is none: %v", err)
	}
}

func TestOthersMayNotConnectWhateverTheUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
