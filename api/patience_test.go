package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// slowServer answers "/" when it is told to, and all else if it is not mute.
func slowServer(t *testing.T, mute bool) (socket string, answer chan struct{}) {
	t.Helper()
	socket, answer = filepath.Join(t.TempDir(), "sock"), make(chan struct{})
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if mute || r.URL.Path == "/slow" {
			select {
			case <-answer:
			case <-r.Context().Done():
			}
		}
		_, _ = w.Write([]byte("{}"))
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return socket, answer
}

// quickly has clients lose their patience soon.
func quickly(t *testing.T, probe time.Duration) {
	t.Helper()
	a, b, c := silentAfter, probeWait, silentEnd
	silentAfter, probeWait, silentEnd = 10*time.Millisecond, probe, time.Second
	t.Cleanup(func() { silentAfter, probeWait, silentEnd = a, b, c })
}

func TestAClientSaysThatTheDaemonIsSilent(t *testing.T) {
	quickly(t, 50*time.Millisecond)
	socket, answer := slowServer(t, true)
	c := NewClient(socket)
	said := make(chan time.Duration, 9)
	c.OnSilence = func(after time.Duration) { said <- after }
	if err := c.Do(t.Context(), "GET", "/slow", nil, nil); !errors.Is(err, ErrDaemonSilent) {
		t.Errorf("reading: %v", err)
	}
	if len(said) != 1 {
		t.Errorf("it was said %d times", len(said))
	}
	// What changes something is waited for: nobody knows whether it was done.
	<-said
	done := make(chan error)
	go func() { done <- c.Do(t.Context(), "POST", "/slow", nil, nil) }()
	<-said
	close(answer)
	if err := <-done; err != nil {
		t.Errorf("changing: %v", err)
	}
}

func TestAClientWaitsForADaemonThatAnswersOthers(t *testing.T) {
	quickly(t, time.Minute)
	socket, answer := slowServer(t, false)
	c := NewClient(socket)
	var said atomic.Bool
	c.OnSilence = func(time.Duration) { said.Store(true) }
	ctx, cancel := context.WithTimeout(t.Context(), 2*silentEnd)
	defer cancel()
	context.AfterFunc(ctx, func() { close(answer) })
	if err := c.Do(t.Context(), "GET", "/slow", nil, nil); err != nil || said.Load() {
		t.Errorf("%v, said: %v", err, said.Load())
	}
}
