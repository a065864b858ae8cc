package pasta

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/sandbox"
)

// files are sockets, as the namespace gives them.
func files(t *testing.T, count int) (list []*os.File) {
	t.Helper()
	for range count {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, os.NewFile(uintptr(fd), "socket"))
	}
	return list
}

// TestLoopbackSocketsAreMadeInBatches, do not block, and are given back; a family that is not there is an error.
func TestLoopbackSocketsAreMadeInBatches(t *testing.T) {
	made := 0
	l := &loopbackSockets{turn: make(chan struct{}, 1), make: func(context.Context) (*sandbox.Reply, error) {
		if made++; made == 3 {
			return nil, unix.EPERM
		}
		return &sandbox.Reply{Streams: [2][]*os.File{files(t, 3), nil}}, nil
	}}
	for i := range 4 {
		fd, err := l.get(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("a socket that blocks: %x, %v", flags, err)
		}
		if want := 1 + i/3; made != want {
			t.Errorf("after %d sockets: made %d times, want %d", i+1, made, want)
		}
		unix.Close(fd)
	}
	if _, err := l.get(t.Context(), true); !errors.Is(err, unix.EPERM) {
		t.Errorf("the namespace is not entered: %v", err)
	}
	if _, err := l.get(t.Context(), true); !errors.Is(err, unix.EAFNOSUPPORT) {
		t.Errorf("a family that is not there: %v", err)
	}
	left := l.pool[v4][0]
	if err := l.close(); err != nil {
		t.Error(err)
	}
	if err := left.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a socket is left open: %v", err)
	}
	if _, err := l.get(t.Context(), false); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestLoopbackDatagramsAreMadeAhead: nobody waits for one, more are made when few are left, and the rest is given back.
func TestLoopbackDatagramsAreMadeAhead(t *testing.T) {
	made := make(chan struct{}, 10)
	l := &loopbackDatagrams{make: func(context.Context) (*sandbox.Reply, error) {
		made <- struct{}{}
		return &sandbox.Reply{Datagrams: [2][]*os.File{files(t, datagramsLow+2), nil}}, nil
	}}
	l.ctx, l.stop = context.WithCancel(t.Context())
	if err := l.fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-made
	for i := range 3 {
		fd, err := l.get(false)
		if err != nil {
			t.Fatal(err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("a socket that blocks: %x, %v", flags, err)
		}
		unix.Close(fd)
		if i < 2 && len(made) != 0 {
			t.Errorf("more are made with %d left", datagramsLow+1-i)
		}
	}
	<-made // the third one left few
	if _, err := l.get(true); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a family that is not there: %v", err)
	}
	l.mu.Lock()
	left := l.pool[v4][0]
	l.mu.Unlock()
	if err := l.close(); err != nil {
		t.Error(err)
	}
	if err := left.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a socket is left open: %v", err)
	}
}
