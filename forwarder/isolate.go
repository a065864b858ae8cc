package forwarder

import (
	"context"
	"net/netip"

	"github.com/usernet/usernet/internal/isolate"
)

// flowHandler is a handler of which the reactor ends the flow where handling its socket panics.
type flowHandler interface {
	eventHandler
	forwarder() *Forwarder
	// fail ends the flow. The reactor calls it once it is not handling anything.
	fail()
}

var (
	_ flowHandler = (*association)(nil)
	_ flowHandler = (*pinger)(nil)
	_ flowHandler = (*pairEnd)(nil)
	_ flowHandler = (*published)(nil)
)

// handle has h handle its events. A panic ends its flow and nothing else: the reactor serves others too.
func handle(h eventHandler, events uint32) {
	fh, ok := h.(flowHandler)
	if !ok {
		h.handleEvents(events) // one of this package's own that do nothing which could fail
		return
	}
	log := fh.forwarder().cfg.Logger
	if !isolate.Do(log, "handling a socket", func() { h.handleEvents(events) }) {
		isolate.Do(log, "ending a flow", fh.fail)
	}
}

func (a *association) forwarder() *Forwarder { return a.f }
func (a *association) fail()                 { a.end() }

func (s *pinger) forwarder() *Forwarder { return s.f }
func (s *pinger) fail()                 { s.end() }

func (e *pairEnd) forwarder() *Forwarder { return e.p.fl.f }
func (e *pairEnd) fail()                 { e.p.end(false) }

// A published port stays: each of its clients is isolated by itself.
func (p *published) forwarder() *Forwarder { return p.f }
func (p *published) fail()                 {}

// call runs one half of a flow's copying, where a panic is an error like others: it ends the flow.
func (fl *flow) call(copy func() error) error {
	return isolate.Call(fl.f.cfg.Logger, "copying a connection", copy, "inside", fl.inside, "outside", fl.outside)
}

// dialInside connects to a container by way of the gateway. A panic is an error like others.
func (f *Forwarder) dialInside(ctx context.Context, src, dst netip.AddrPort) (c Conn, err error) {
	err = isolate.Call(f.cfg.Logger, "connecting to a container", func() (err error) {
		c, err = f.cfg.Inside.DialTCP(ctx, src, dst)
		return err
	}, "container", dst.Addr())
	return c, err
}
