package forwarder

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/internal/sockio"
)

var (
	_ sockio.Isolated = (*association)(nil)
	_ sockio.Isolated = (*pinger)(nil)
)

// Logger implements sockio.Isolated.
func (a *association) Logger() *slog.Logger { return a.f.cfg.Logger }

// Fail implements sockio.Isolated.
func (a *association) Fail() { a.f.udp.End(a) }

// Logger implements sockio.Isolated.
func (s *pinger) Logger() *slog.Logger { return s.f.cfg.Logger }

// Fail implements sockio.Isolated.
func (s *pinger) Fail() { s.f.echo.End(s) }

// dialInside connects to a container by way of the gateway. A panic is an error like others.
func (f *Forwarder) dialInside(ctx context.Context, src, dst netip.AddrPort) (c Conn, err error) {
	err = isolate.Call(f.cfg.Logger, "connecting to a container", func() (err error) {
		c, err = f.cfg.Inside.DialTCP(ctx, src, dst)
		return err
	}, "container", dst.Addr())
	return c, err
}
