package sandbox

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Layouts of <linux/inet_diag.h>: struct inet_diag_req_v2 has 56 bytes, with the local port at 8; in struct
// inet_diag_msg the local port is at 4 and the local address at 8.
const (
	diagRequestLen  = 56
	diagRequestPort = 8
	diagPort        = 4
	diagAddr        = 8
	tcpListen       = 10 // TCP_LISTEN (include/net/tcp_states.h)
)

// tcpListens says whether a socket of this namespace listens at exactly at, an IPv4 address. Unlike a read of
// /proc/net/tcp, the kernel goes through listening sockets only for it: the table of connections is one for all
// namespaces, and takes milliseconds on a machine with much memory, even where it is empty.
func tcpListens(at netip.AddrPort) (bool, error) {
	c, err := netlink.Dial(unix.NETLINK_INET_DIAG, nil)
	if err != nil {
		return false, err
	}
	defer c.Close()
	b := make([]byte, diagRequestLen)
	b[0], b[1] = unix.AF_INET, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], 1<<tcpListen)
	binary.BigEndian.PutUint16(b[diagRequestPort:], at.Port())
	list, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
		Data:   b,
	})
	if err != nil {
		return false, err
	}
	for _, m := range list {
		if len(m.Data) >= diagAddr+4 && binary.BigEndian.Uint16(m.Data[diagPort:]) == at.Port() &&
			[4]byte(m.Data[diagAddr:diagAddr+4]) == at.Addr().As4() {
			return true, nil
		}
	}
	return false, nil
}
