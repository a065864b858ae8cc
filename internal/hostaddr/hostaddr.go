// Package hostaddr knows which IP addresses this machine has, without asking the kernel each time.
//
// A [Set] lists the addresses once and then follows the kernel's announcements of changes (rtnetlink(7), groups
// RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR). [Set.Has] is one atomic load and one map look-up, so it can be asked for
// each accepted connection:
//
//	own := hostaddr.Watch()
//	defer own.Close()
//	if own.Has(client) { ... } // the client is a program of this machine
//
// An announcement only says that something changed: the whole list is then read anew, once for all announcements that
// are waiting. So a lost announcement (ENOBUFS) is handled like a received one. Where the kernel gives no such socket
// the list is read anew when it is asked for and more than a second old.
//
// The package looks at the network namespace of the process only. It never changes an address.
package hostaddr

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxAge is how old the list may be where changes are not announced.
const maxAge = time.Second

// Set is the addresses of this machine. Make it with Watch, end it with Close. Its methods may be called by many
// goroutines at once.
type Set struct {
	now  atomic.Pointer[list]
	list func() ([]net.Addr, error) // net.InterfaceAddrs

	changes *os.File      // the rtnetlink socket; nil: changes are not announced
	done    chan struct{} // closed when the goroutine that reads changes has ended
	close   sync.Once
}

// list is what was found at one time. It never changes once it is stored.
type list struct {
	own              map[netip.Addr]struct{}
	global4, global6 netip.Addr // the first of each family; zero: there is none
	read             time.Time
}

// Watch lists the addresses and follows their changes. It does not fail: without announcements it reads the list more
// often, and while the list cannot be read every address counts as the machine's own.
func Watch() *Set {
	s := &Set{list: net.InterfaceAddrs, done: make(chan struct{})}
	changes, err := subscribe()
	if err != nil {
		close(s.done)
	} else {
		s.changes = changes
		s.refresh() // after subscribing, so that no change is missed between the two
		go s.follow()
	}
	return s
}

// Has says whether a is an address of this machine. Loopback addresses always are. An IPv6 zone is ignored.
func (s *Set) Has(a netip.Addr) bool {
	a = a.Unmap()
	if a.IsLoopback() {
		return true
	}
	l := s.current()
	if l == nil {
		return true
	}
	_, ok := l.own[a.WithZone("")]
	return ok
}

// Global is an address of this machine that others may reach it at, the first in the order of interfaces: one that
// leads to services at all addresses, unlike a loopback address, which leads to those of the machine's own programs as
// well. It is the zero address where there is none of the family.
func (s *Set) Global(v6 bool) netip.Addr {
	l := s.current()
	switch {
	case l == nil:
		return netip.Addr{}
	case v6:
		return l.global6
	}
	return l.global4
}

// current is the list; nil where it cannot be read.
func (s *Set) current() *list {
	l := s.now.Load()
	if l == nil || s.changes == nil && time.Since(l.read) > maxAge {
		return s.refresh()
	}
	return l
}

// Close ends the subscription and waits for its goroutine. Has goes on with what is known. Closing again does nothing.
func (s *Set) Close() error {
	s.close.Do(func() {
		if s.changes != nil {
			_ = s.changes.Close() // ends the read that follow waits in
		}
	})
	<-s.done
	return nil
}

// refresh reads the list and stores it; nil where it cannot be read.
func (s *Set) refresh() *list {
	addrs, err := s.list()
	if err != nil {
		return nil
	}
	l := &list{own: make(map[netip.Addr]struct{}, len(addrs)), read: time.Now()}
	for _, x := range addrs {
		if n, ok := x.(*net.IPNet); ok {
			if own, ok := netip.AddrFromSlice(n.IP); ok {
				own = own.Unmap()
				l.own[own] = struct{}{}
				first := &l.global4
				if own.Is6() {
					first = &l.global6
				}
				if own.IsGlobalUnicast() && !first.IsValid() {
					*first = own
				}
			}
		}
	}
	s.now.Store(l)
	return l
}

// follow reads the list anew after each burst of announcements, until the socket is closed.
func (s *Set) follow() {
	defer close(s.done)
	raw, err := s.changes.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 8<<10) // what a message says does not matter: a longer one is cut short (recv(2))
	for {
		seen := false
		err := raw.Read(func(fd uintptr) bool {
			for {
				_, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
				switch {
				case err == nil, errors.Is(err, unix.ENOBUFS): // ENOBUFS: announcements were lost (netlink(7))
					seen = true
				case errors.Is(err, unix.EINTR):
				default:
					return seen // false waits for the next announcement
				}
			}
		})
		if err != nil {
			return
		}
		s.refresh()
	}
}

// subscribe opens a socket on which the kernel announces changes of addresses.
func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	groups := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR}
	if err := unix.Bind(fd, groups); err != nil {
		return nil, errors.Join(fmt.Errorf("rtnetlink: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}
