package pasta

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockdiag"
)

// listening returns the ports at which something listens in the namespace of fd, of both families; not those of sockets
// that are bound to except, where that is valid.
func listening(fd int, proto uint8, except netip.Addr) (*portSet, error) {
	set := new(portSet)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := sockdiag.Listening(fd, family, proto, func(at netip.AddrPort) {
			if at.Addr() != except && at.Port() != 0 {
				set.add(at.Port(), at.Port())
			}
		})
		if err != nil {
			return nil, fmt.Errorf("what listens in the namespace: %w", err)
		}
	}
	return set, nil
}
