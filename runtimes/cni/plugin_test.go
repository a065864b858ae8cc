package cni

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/usernet/usernet/api"
)

// detacher is a daemon that is asked for nothing but an end.
type detacher struct {
	daemon
	err error
}

func (d detacher) Detach(context.Context, string) error { return d.err }

// TestPortsStayWithTheirContainer: a DEL that fails leaves the container as it was, and nobody would lead its ports on.
func TestPortsStayWithTheirContainer(t *testing.T) {
	dir, err := os.MkdirTemp("", "") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := plugin{
		getenv: func(name string) string { return map[string]string{"XDG_RUNTIME_DIR": dir}[name] },
		stderr: io.Discard,
	}
	socket, err := relaySocket(p.getenv, "c1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 2)
	t.Cleanup(func() {
		_ = l.Close()
		for range asked {
		}
	})
	go func() { // a relay
		defer close(asked)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			word := make([]byte, len(endWord))
			_, _ = io.ReadFull(c, word)
			asked <- string(word)
			_ = c.Close()
		}
	}()
	if err := p.detach(t.Context(), detacher{err: api.ErrDaemonSilent}, "k", "c1"); err == nil {
		t.Error("a daemon does not answer, and the end of the attachment is claimed")
	}
	if len(asked) != 0 {
		t.Errorf("the relay was asked to end, with the container still attached")
	}
	if err := p.detach(t.Context(), detacher{}, "k", "c1"); err != nil {
		t.Error(err)
	}
	if word := <-asked; word != endWord || len(asked) != 0 {
		t.Errorf("the relay was told %q", word)
	}
	gone := fmt.Errorf("%w (%w)", api.ErrNoDaemon, syscall.ECONNREFUSED)
	if err := p.detach(t.Context(), detacher{err: gone}, "k", "c1"); err != nil {
		t.Errorf("a daemon that has ended: %v", err)
	}
	if word := <-asked; word != endWord {
		t.Errorf("without a daemon the relay was told %q", word)
	}
}
