package main

import (
	"errors"
	"log/slog"
	"net"
	"os"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/daemon"
	"github.com/usernet/usernet/forwarder"
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
	h.API = -1 // its owner is l from here
	log.Info("took over from the running daemon", "published", len(h.Published), "inherited", len(h.Inherited), "sandboxes", len(h.Sandboxes), "connections", len(h.Flows))
	return l, h, nil
}

// handOver gives what must stay open to the daemon at the other end of c, and ends this one. On an error this one goes on.
func handOver(c *api.Successor, l net.Listener, s *api.Server, d *daemon.Daemon) (ended bool, err error) {
	defer c.Close() // which is the sign that the state is free
	u, ok := l.(*net.UnixListener)
	if !ok {
		return false, errors.New("the API's listener cannot be handed over")
	}
	h, err := d.HandOver()
	if err != nil {
		return false, err
	}
	defer h.Close()
	if h.API, err = forwarder.CopyOf(u); err != nil {
		return false, err
	}
	if err := c.Give(&h); err != nil {
		return false, err
	}
	u.SetUnlinkOnClose(false)
	d.Drain()
	h.Flows = d.ReleaseFlows()
	err = c.GiveFlows(h.Flows) // without it they are reset
	return true, errors.Join(err, s.Close(), d.Close())
}
