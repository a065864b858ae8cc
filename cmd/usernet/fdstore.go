package main

import (
	"errors"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder"
)

// fdStore is the service manager's file descriptor store (systemd.service(5), FileDescriptorStoreMax=).
type fdStore struct {
	manager int // a socket connected to it; package net sends no descriptors over such
	log     *slog.Logger
}

// managerPatience is how many seconds a service manager may take to read a message.
const managerPatience = 2

// openFDStore returns the store of the service manager that runs this process, nil without one. Managers that keep
// nothing close what they get. The socket lives as long as the process.
func openFDStore(log *slog.Logger) forwarder.Keeper {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: managerPatience}),
			unix.Connect(fd, &unix.SockaddrUnix{Name: path}))
		if err == nil {
			return &fdStore{fd, log}
		}
		_ = unix.Close(fd)
	}
	log.Warn("the service manager does not keep published ports", "error", err)
	return nil
}

// Keep implements forwarder.Keeper. FDPOLL=0: an error that waits on a socket is no reason to throw it away.
func (s *fdStore) Keep(name string, fd int) {
	s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, unix.UnixRights(fd))
}

// Drop implements forwarder.Keeper.
func (s *fdStore) Drop(name string) { s.send("FDSTOREREMOVE=1\nFDNAME="+name, nil) }

func (s *fdStore) send(state string, rights []byte) {
	if err := unix.Sendmsg(s.manager, []byte(state), rights, nil, unix.MSG_NOSIGNAL); err != nil {
		s.log.Debug("the service manager's descriptor store", "error", err)
	}
}
