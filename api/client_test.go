package api

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestClientsForOneRequestLeaveNoConnections asks with a client of its own each time.
func TestClientsForOneRequestLeaveNoConnections(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	const n = 5
	closed := make(chan struct{}, n)
	s := &http.Server{
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		ConnState: func(_ net.Conn, to http.ConnState) {
			if to == http.StateClosed {
				closed <- struct{}{}
			}
		},
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-served })
	for range n {
		c := NewClient(socket)
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.CloseIdle()
	}
	for i := range n {
		select {
		case <-closed:
		case <-time.After(30 * time.Second):
			t.Fatalf("%d of %d connections are closed", i, n)
		}
	}
}

// TestAdviceWhereNothingAnswers: a user who may not connect to the socket is not told to start a daemon.
func TestAdviceWhereNothingAnswers(t *testing.T) {
	for err, want := range map[error]string{
		syscall.EACCES:          "another user's",
		syscall.ECONNREFUSED:    "usernet serve",
		missing{syscall.ENOENT}: "usernet serve",
	} {
		if got := advice(err); !strings.Contains(got, want) {
			t.Errorf("%v: %q lacks %q", err, got, want)
		}
	}
}
