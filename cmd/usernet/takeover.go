package main

import (
	"errors"
	"log/slog"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/daemon"
)

// takeOver gets the sockets of the daemon that runs at the socket, which then ends. Where none runs there is nothing to take.
func takeOver(socket string, log *slog.Logger) (l net.Listener, h api.Handover, err error) {
	h, err = api.TakeOver(socket)
	if errors.Is(err, api.ErrNoDaemon) {
		return nil, api.Handover{}, nil
	}
	if err != nil {
		return nil, h, err
	}
	f := os.NewFile(uintptr(h.API), "api")
	defer f.Close()
	if l, err = net.FileListener(f); err != nil {
		return nil, h, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(true) // as the one who made it would
	}
	log.Info("took over from the running daemon", "published", len(h.Published), "inherited", len(h.Inherited))
	return l, h, nil
}

// handOver gives the sockets to the daemon at the other end of c and ends this one. On an error this one goes on.
func handOver(c *net.UnixConn, l net.Listener, s *api.Server, d *daemon.Daemon) (ended bool, err error) {
	defer c.Close() // which is the sign that the state is free
	u, ok := l.(*net.UnixListener)
	if !ok {
		return false, errors.New("the API's listener cannot be handed over")
	}
	f, err := u.File()
	if err != nil {
		return false, err
	}
	defer f.Close()
	h := api.Handover{API: int(f.Fd())}
	if h.Published, h.Inherited, err = d.HandOver(); err == nil {
		err = h.Give(c)
	}
	defer func() {
		for _, list := range [][]int{h.Published, h.Inherited} {
			for _, fd := range list {
				_ = unix.Close(fd)
			}
		}
	}()
	if err != nil {
		return false, err
	}
	u.SetUnlinkOnClose(false)
	return true, errors.Join(s.Close(), d.Close())
}
