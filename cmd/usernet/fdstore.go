package main

import (
	"errors"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder"
)

// fdStore is the service manager's file descriptor store (systemd.service(5), FileDescriptorStoreMax=).
type fdStore struct {
	manager int // a socket connected to it; package net sends no descriptors over such
	log     *slog.Logger
	limit   int // how many it keeps; 0: unknown

	mu   sync.Mutex
	kept map[string]bool // by name: true for what gives way to published ports
}

var _ forwarder.Keeper = (*fdStore)(nil)

// managerPatience is how many seconds a service manager may take to read a message.
const managerPatience = 2

// openFDStore returns the store of the service manager that runs this process, nil without one: names are what is in it.
// Managers that keep nothing close what they get. The socket lives as long as the process.
func openFDStore(log *slog.Logger, names []string) *fdStore {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: managerPatience}),
			unix.Connect(fd, &unix.SockaddrUnix{Name: path}))
		if err == nil {
			s := &fdStore{manager: fd, log: log, kept: map[string]bool{}}
			s.limit, _ = strconv.Atoi(os.Getenv("FDSTORE")) // systemd.exec(5); before systemd 254 there is none
			for _, name := range names {
				s.kept[name] = !isPort(name)
			}
			return s
		}
		_ = unix.Close(fd)
	}
	log.Warn("the service manager does not keep published ports", "error", err)
	return nil
}

// Keep implements forwarder.Keeper. Where the store is full, something that is no published port gives way.
func (s *fdStore) Keep(name string, fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.kept[name]; !known && s.full() {
		for other, yields := range s.kept {
			if yields {
				s.drop(other)
				break
			}
		}
	}
	s.kept[name] = false
	s.store(name, fd)
}

// Drop implements forwarder.Keeper.
func (s *fdStore) Drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(name)
}

func (s *fdStore) full() bool { return s.limit > 0 && len(s.kept) >= s.limit }

// store: FDPOLL=0, since an error that waits on a socket is no reason to throw it away.
func (s *fdStore) store(name string, fd int) {
	s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, unix.UnixRights(fd))
}

func (s *fdStore) drop(name string) {
	delete(s.kept, name)
	s.send("FDSTOREREMOVE=1\nFDNAME="+name, nil)
}

func (s *fdStore) send(state string, rights []byte) {
	if err := unix.Sendmsg(s.manager, []byte(state), rights, nil, unix.MSG_NOSIGNAL); err != nil {
		s.log.Debug("the service manager's descriptor store", "error", err)
	}
}

// Settle implements daemon.SandboxKeeper: the manager closes the end of a pipe when it has done all that it was told before
// (sd_notify_barrier(3)).
func (s *fdStore) Settle() {
	r, w, err := os.Pipe()
	if err != nil {
		return // no descriptors: waiting is not possible
	}
	defer r.Close()
	s.send("BARRIER=1", unix.UnixRights(int(w.Fd())))
	_ = w.Close()
	_ = r.SetReadDeadline(time.Now().Add(managerPatience * time.Second))
	_, _ = r.Read(make([]byte, 1)) // its end, or too late
}

// sandboxStore is the store for what leads into sandboxes, which takes no room from published ports: it can be opened again
// without harm, while a port that is closed refuses connections. Where the limit is not known nothing is stored, since what
// a full store refuses is not told.
type sandboxStore struct{ *fdStore }

// Keep implements forwarder.Keeper.
func (s sandboxStore) Keep(name string, fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.kept[name]; known || s.limit == 0 || s.full() {
		return // it is in the store, or cannot be
	}
	s.kept[name] = true
	s.store(name, fd)
}
