package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/usernet/usernet/api"
)

// answers are what a daemon answers to one request after the other.
type answers struct {
	errs  []error
	later []string // keys
}

func (a *answers) DetachLater(key string) error {
	a.later = append(a.later, key)
	return nil
}

func (a *answers) Detach(context.Context, string) error {
	err := a.errs[0]
	a.errs = a.errs[1:]
	return err
}

func TestTheEndOfAnAttachment(t *testing.T) {
	gone := fmt.Errorf("%w (%w)", api.ErrNoDaemon, syscall.ECONNREFUSED)
	none := fmt.Errorf("%w (%w)", api.ErrNoDaemon, fs.ErrNotExist)
	full := fmt.Errorf("%w (%w)", api.ErrNoDaemon, syscall.EAGAIN)
	foreign := fmt.Errorf("%w (%w)", api.ErrNoDaemon, fs.ErrPermission)
	refused := errors.New("refused")
	for _, test := range []struct {
		name    string
		answers []error
		want    error
		warns   bool
	}{
		{"a daemon that does it", []error{nil}, nil, false},
		{"a daemon that has ended", []error{gone}, nil, true},
		{"no socket", []error{none}, nil, true},
		{"a daemon that is replaced meanwhile", []error{api.ErrDaemonEnded, nil}, nil, false},
		{"a daemon that ends meanwhile", []error{api.ErrDaemonEnded, gone}, nil, true},
		{"daemons that end all the time", []error{api.ErrDaemonEnded, api.ErrDaemonEnded}, api.ErrDaemonEnded, false},
		{"a daemon that refuses", []error{refused}, refused, false},
		{"a daemon whose queue is full", []error{full}, full, false},
		{"another user's daemon", []error{foreign}, foreign, false},
		{"a daemon that hangs", []error{context.DeadlineExceeded}, context.DeadlineExceeded, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var said strings.Builder
			d := &answers{errs: test.answers}
			if err := Detach(t.Context(), d, "netavark/n/c", &said); !errors.Is(err, test.want) ||
				(err == nil) != (test.want == nil) {
				t.Errorf("%v, want %v", err, test.want)
			}
			if got := strings.Contains(said.String(), "warning"); got != test.warns {
				t.Errorf("said %q; a warning: %v", said.String(), test.warns)
			}
			if len(d.errs) != 0 {
				t.Errorf("not asked again: %v", d.errs)
			}
			if left := len(d.later) == 1; left != test.warns {
				t.Errorf("word was left of %v", d.later)
			}
		})
	}
}

// TestADaemonThatHangsIsToldLater, where the runtime would not ask again.
func TestADaemonThatHangsIsToldLater(t *testing.T) {
	refused := errors.New("refused")
	for err, want := range map[error]error{context.DeadlineExceeded: nil, api.ErrDaemonSilent: nil, refused: refused} {
		var said strings.Builder
		d := &answers{errs: []error{err}}
		if got := DetachOrLater(t.Context(), d, "k", &said); !errors.Is(got, want) {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
		warned := strings.Contains(said.String(), "does not answer")
		if left := len(d.later) == 1; left != (want == nil) || left != warned {
			t.Errorf("%v: left %v, said %q", err, d.later, &said)
		}
	}
}

// TestWhatTheClientSaysOfADaemonThatIsGone: a socket that is not there, and one that a killed daemon has left.
func TestWhatTheClientSaysOfADaemonThatIsGone(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "left")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{left, filepath.Join(dir, "none")} {
		var said strings.Builder
		if err := Detach(t.Context(), api.NewClient(path), "k", &said); err != nil ||
			!strings.Contains(said.String(), path) {
			t.Errorf("%s: %v, said %q", path, err, said.String())
		}
	}
}
