package handover

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// FromManager returns what the service manager passes (sd_listen_fds(3)): what was in its store, the API's listener,
// where one of the other sockets is a Unix one that listens, and sockets for published ports. It also returns the IDs
// of what is in the store.
func FromManager() (s *Set, stored []ID, err error) {
	s = &Set{}
	for i, f := range activation.Files(true) {
		id, kept := ParseID(f.Name())
		fd, err := sockio.DupFDFrom(int(f.Fd()), 3) // above the standard streams
		if err != nil {
			s.Close()
			return nil, nil, fmt.Errorf("socket %s from the service manager: %w", f.Name(), err)
		}
		_ = f.Close() // fd is its copy
		switch {
		case kept:
			stored = append(stored, id)
		case s.Count(API) == 0 && isUnixListener(fd):
			id = ID{Kind: API}
		default:
			id = ID{Kind: Inherited, Name: fmt.Sprintf("%d-%s", i, f.Name())} // several sockets may have one name
		}
		s.Put(id, fd)
	}
	return s, stored, nil
}

func isUnixListener(fd int) bool {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_UNIX {
		return false
	}
	accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && accepts == 1
}

// managerPatience is how many seconds a service manager may take to read a message.
const managerPatience = 2

// Store is the service manager's file descriptor store (systemd.service(5), FileDescriptorStoreMax=). It is a Sink.
//
// Sockets of published ports go before all else: where the store is full, something else gives way. What is not
// essential is stored only where the manager says how much it stores, since it tells nobody what a full store refuses.
type Store struct {
	manager int // a datagram socket connected to the manager's; package net sends no descriptors over such
	limit   int // how many the manager stores; 0: unknown
	log     *slog.Logger

	mu     sync.Mutex // guards stored, and keeps messages in the order of its changes
	stored map[ID]bool
}

var _ Sink = (*Store)(nil)

// OpenStore returns the store of the service manager that runs this process, nil without one: stored is what is in it.
// Managers that store nothing close what they get. The socket lives as long as the process.
func OpenStore(log *slog.Logger, stored []ID) *Store {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	limit, _ := strconv.Atoi(os.Getenv("FDSTORE")) // systemd.exec(5); before systemd 254 there is none
	s, err := openStore(path, limit, log, stored)
	if err != nil {
		log.Warn("the service manager does not store sockets of published ports", "error", err)
		return nil
	}
	return s
}

func openStore(path string, limit int, log *slog.Logger, stored []ID) (*Store, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: managerPatience}),
		unix.Connect(fd, &unix.SockaddrUnix{Name: path}),
	)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	s := &Store{manager: fd, limit: limit, log: log, stored: map[ID]bool{}}
	for _, id := range stored {
		s.stored[id] = true
	}
	return s, nil
}

// Put implements Sink.
func (s *Store) Put(id ID, fd int) {
	if !id.storable() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.stored[id]
	if !id.essential() && (known || s.limit == 0 || s.full()) {
		return // it is in the store, or cannot be
	}
	if !known && s.full() {
		s.yield()
	}
	s.stored[id] = true
	// FDPOLL=0, since an error that waits on a socket is no reason to throw it away.
	s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+id.String(), fd)
}

// Remove implements Sink.
func (s *Store) Remove(id ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id.storable() {
		s.remove(id)
	}
}

// Barrier implements Sink: the manager closes the end of a pipe when it has done all that it was told before
// (sd_notify_barrier(3)).
func (s *Store) Barrier() {
	r, w, err := os.Pipe()
	if err != nil {
		return // no descriptors: waiting is not possible
	}
	defer r.Close()
	s.send("BARRIER=1", int(w.Fd()))
	_ = w.Close()
	_ = r.SetReadDeadline(time.Now().Add(managerPatience * time.Second))
	_, _ = r.Read(make([]byte, 1)) // its end, or too late
}

func (s *Store) full() bool { return s.limit > 0 && len(s.stored) >= s.limit }

// yield removes something that is not essential, where there is such a thing.
func (s *Store) yield() {
	for id := range s.stored {
		if !id.essential() {
			s.remove(id)
			return
		}
	}
}

func (s *Store) remove(id ID) {
	delete(s.stored, id)
	s.send("FDSTOREREMOVE=1\nFDNAME=" + id.String())
}

func (s *Store) send(state string, fds ...int) {
	if err := sockio.SendRights(s.manager, []byte(state), fds...); err != nil {
		s.log.Debug("the service manager's descriptor store", "error", err)
	}
}
