package dashboard

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// Connections that are held at a time. A browser opens six to an address.
const (
	maxStrangers = 16
	maxGuests    = 6 * maxSessions
)

// connections are those of a server: strangers' at first, and guests' once a request on them had a session. Beyond the
// bounds the oldest of a kind is closed, so that who connects and says nothing keeps nobody out.
type connections struct {
	mu                sync.Mutex // guards the rest
	strangers, guests []net.Conn // the oldest first
}

type connKey struct{}

// withConn is an http.Server's ConnContext.
func (*connections) withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// changed is an http.Server's ConnState.
func (s *connections) changed(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.strangers = bounded(append(s.strangers, c), maxStrangers)
	case http.StateClosed, http.StateHijacked:
		s.strangers, s.guests = without(s.strangers, c), without(s.guests, c)
	}
}

// trust makes a guest's connection of a request's.
func (s *connections) trust(r *http.Request) {
	c, _ := r.Context().Value(connKey{}).(net.Conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.strangers); c != nil {
		if s.strangers = without(s.strangers, c); len(s.strangers) < n {
			s.guests = bounded(append(s.guests, c), maxGuests)
		}
	}
}

// bounded closes the oldest connections beyond a number.
func bounded(list []net.Conn, most int) []net.Conn {
	for len(list) > most {
		_ = list[0].Close() // the server notices, and tells of it by changed
		list = list[1:]
	}
	return list
}

func without(list []net.Conn, c net.Conn) []net.Conn {
	for i := range list {
		if list[i] == c {
			return append(list[:i:i], list[i+1:]...)
		}
	}
	return list
}
