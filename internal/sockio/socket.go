package sockio

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Socket owns a non-blocking descriptor. Its lock keeps those who use the descriptor from one that was closed meanwhile
// and then given to somebody else. The zero value is closed.
type Socket struct {
	mu   sync.RWMutex // held for reading while the descriptor is used
	fd   int
	open bool

	discovery atomic.Int32  // the socket's IP_MTU_DISCOVER, once set
	lost      atomic.Uint32 // what CountLost counts, as the kernel last said it
}

// Open makes fd the socket's. It is called once, before anybody uses the socket.
func (s *Socket) Open(fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fd, s.open = fd, true
}

// Use calls f with the descriptor, which stays open meanwhile. After Close the error is EBADF.
func (s *Socket) Use(f func(fd int) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.open {
		return unix.EBADF
	}
	return f(s.fd)
}

// Close takes the socket off r and closes it. Closing it again does nothing.
func (s *Socket) Close(r *Reactor) {
	if fd := s.Release(r); fd >= 0 {
		_ = CloseSocket(fd)
	}
}

// Release takes the socket off r and returns its descriptor, which is the caller's then; -1 if it was closed.
func (s *Socket) Release(r *Reactor) (fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return -1
	}
	s.open = false
	r.Remove(s.fd)
	return s.fd
}

// SetFragment has the kernel fragment what is sent with fd, the socket's descriptor, where it may, and refuse what it
// may not (ip(7), IP_MTU_DISCOVER).
func (s *Socket) SetFragment(fd int, never, v6 bool) {
	mode := unix.IP_PMTUDISC_WANT
	if never {
		mode = unix.IP_PMTUDISC_DO
	}
	if s.discovery.Swap(int32(mode)) == int32(mode) {
		return
	}
	if v6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, mode)
	} else {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, mode)
	}
}
