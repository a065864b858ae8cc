package forwarder

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// Explanation is what is decided about a container's packets to a destination, and why.
type Explanation struct {
	Way    Way
	Target netip.AddrPort // where on the host it leads
	Err    error          // why it does not; Prohibited tells an egress policy's refusal
	Limit  string         // the counter of a limit that the container has reached; "": none

	Source    netip.Addr // of the host, from which it is sent
	Interface string     // of the host, that it has to leave by; "": the routing table's choice
	SourceErr error      // why the host cannot send there
}

// Prohibited says whether an error is a refusal of Config.Allow.
func Prohibited(err error) bool { return errors.Is(err, errProhibited) }

// Explain says what becomes of a container's packets to a destination by the code that decides about them. Nothing is
// sent, counted or logged. allow is asked instead of Config.Allow.
func (f *Forwarder) Explain(src netip.Addr, proto uint8, dst netip.AddrPort, allow allowFunc) Explanation {
	var e Explanation
	e.Target, e.Way, e.Err = f.decide(src, proto, dst, allow)
	if e.Err != nil {
		return e
	}
	f.mu.Lock()
	u := f.use[src]
	f.mu.Unlock()
	kinds := []usageKind{useEcho}
	switch proto {
	case unix.IPPROTO_TCP:
		kinds = []usageKind{useDialling, useTCP}
	case unix.IPPROTO_UDP:
		kinds = []usageKind{useUDP}
	}
	for _, k := range kinds {
		if f.atLimit(u, k) {
			e.Limit = counterNames[limitCounters[k]]
		}
	}
	e.Interface = f.outboundInterface(e.Target.Addr())
	e.Source, e.SourceErr = f.sourceFor(e.Target)
	return e
}

// sourceFor asks the kernel for the address that a socket to a destination has. To connect a UDP socket sends nothing.
func (f *Forwarder) sourceFor(to netip.AddrPort) (netip.Addr, error) {
	if to.Port() == 0 {
		to = netip.AddrPortFrom(to.Addr(), 1) // connect(2) refuses none
	}
	fd, err := f.openUDP(to.Addr())
	if err != nil {
		return netip.Addr{}, err
	}
	defer unix.Close(fd)
	if err := sockio.Connect(fd, to); err != nil {
		return netip.Addr{}, err
	}
	return sockio.LocalAddr(fd).Addr(), nil
}

// DialHost connects to the outside as a connection of the container at inside does, and closes it again.
func (f *Forwarder) DialHost(ctx context.Context, inside netip.Addr, to netip.AddrPort) error {
	fd, err := f.dialHost(ctx, inside, to)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
