package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/daemon"
	"github.com/usernet/usernet/handover"
	"github.com/usernet/usernet/internal/sockio"
)

// received is what this daemon starts with.
type received struct {
	listener net.Listener // of the API; nil: none was left to this daemon
	set      *handover.Set
	flows    []handover.Flow
	stored   []handover.ID // in the service manager's store
}

// socket is where the API listens: at the path of what was received, else where it is about to.
func (r *received) socket(otherwise string) string {
	if r.listener == nil {
		return otherwise
	}
	return r.listener.Addr().String()
}

// fromManager takes what the service manager passes. It comes before any program is started, which would inherit it.
func fromManager() (r received, err error) {
	if r.set, r.stored, err = handover.FromManager(); err != nil {
		return r, err
	}
	r.listener, err = takeListener(r.set, false)
	return r, err
}

// takeOver adds what the daemon at the socket hands over, which then ends. Where none runs there is nothing to take.
func (r *received) takeOver(socket string, log *slog.Logger) error {
	set, flows, err := handover.Receive(socket)
	switch {
	case errors.Is(err, handover.ErrNobody):
		return nil
	case err != nil:
		return err
	}
	log.Info("took over from the running daemon", "published", set.Count(handover.Published),
		"inherited", set.Count(handover.Inherited), "taps", set.Count(handover.TAP), "connections", len(flows))
	r.set.Merge(set)
	r.flows = flows
	r.listener, err = takeListener(r.set, true)
	return err
}

// takeListener makes the API's listener of what was received; nil where there is none. unlink says whether the
// socket's file is to be removed with it: not where it is the service manager's.
func takeListener(set *handover.Set, unlink bool) (net.Listener, error) {
	fd, ok := set.Take(handover.ID{Kind: handover.API})
	if !ok {
		return nil, nil
	}
	f := os.NewFile(uintptr(fd), "api")
	defer f.Close() // the listener has a copy
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("the API's listener that was left to this daemon: %w", err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(unlink)
	}
	return l, nil
}

// offer leaves what must stay open to the daemon at the other end of p, and ends this one. On an error this one goes
// on.
func offer(p *handover.Peer, l net.Listener, s *api.Server, d *daemon.Daemon) (ended bool, err error) {
	defer p.Close() // which is the sign that the state is free
	u, ok := l.(*net.UnixListener)
	if !ok {
		return false, errors.New("the API's listener cannot be handed over")
	}
	var set handover.Set
	defer set.Close()
	fd, err := sockio.Dup(u)
	if err != nil {
		return false, err
	}
	set.Put(handover.ID{Kind: handover.API}, fd)
	if err := d.HandOver(&set); err != nil {
		return false, err
	}
	if err := p.Offer(&set); err != nil {
		return false, err
	}
	u.SetUnlinkOnClose(false)
	d.Drain()
	flows := d.DetachFlows()
	err = p.OfferFlows(flows) // without it they are reset
	for i := range flows {
		flows[i].Close()
	}
	return true, errors.Join(err, s.Close(), d.Close())
}
