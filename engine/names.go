package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/usernet/usernet/dns"
)

// serveNames answers names at port 53 of each of the gateway's addresses and of NameServers.
func (n *Network) serveNames() error {
	if n.cfg.Names == nil {
		return nil
	}
	client := func(from net.Addr) dns.Client {
		ap, err := netip.ParseAddrPort(from.String())
		if err != nil {
			return dns.Client{}
		}
		id, _ := n.Owner(ap.Addr().Unmap().WithZone(""))
		return n.cfg.Client(id)
	}
	list := slices.Clone(n.cfg.NameServers)
	for _, g := range n.cfg.Gateways {
		if !slices.Contains(list, g.Addr()) {
			list = append(list, g.Addr())
		}
	}
	for _, a := range list {
		at := netip.AddrPortFrom(a, 53)
		pc, err := n.gw.ListenUDP(at)
		if err != nil {
			return fmt.Errorf("DNS on %s: %w", at, err)
		}
		ln, err := n.gw.ListenTCP(at)
		if err != nil {
			return errors.Join(fmt.Errorf("DNS on %s: %w", at, err), pc.Close())
		}
		serve(&n.serves, n.log, n.cfg.Names, pc, ln, client)
	}
	return nil
}

// serve answers on both sockets until they are closed or have a deadline that has passed; wg counts the two goroutines.
func serve(
	wg *sync.WaitGroup,
	log *slog.Logger,
	names Names,
	pc net.PacketConn,
	ln net.Listener,
	client func(net.Addr) dns.Client,
) {
	run := func(f func() error) {
		if err := f(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
			log.Debug("DNS socket ended", "address", pc.LocalAddr(), "error", err)
		}
	}
	wg.Go(func() { run(func() error { return names.ServePacket(pc, client) }) })
	wg.Go(func() { run(func() error { return names.ServeListener(ln, client) }) })
}
