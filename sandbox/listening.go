package sandbox

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockdiag"
)

// tcpListens says whether a socket of this namespace listens at exactly at, an IPv4 address.
func tcpListens(at netip.AddrPort) (listens bool, err error) {
	fd, err := sockdiag.Open()
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	err = sockdiag.Listening(fd, unix.AF_INET, unix.IPPROTO_TCP, func(a netip.AddrPort) {
		listens = listens || a == at
	})
	return listens, err
}
