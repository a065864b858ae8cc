package bypass

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// seedSYNSent adds the connections that sockets of this namespace are opening already to the set syn_sent. The rules
// are made because of a container's first connection, whose SYN was sent before they existed.
func seedSYNSent(ipv6 bool) error {
	protocols := []uint8{unix.AF_INET}
	if ipv6 {
		protocols = append(protocols, unix.AF_INET6) // mapped IPv4 too (RFC 4291, 2.5.5.2)
	}
	for _, protocol := range protocols {
		sockets, err := netlink.SocketDiagTCP(protocol)
		if err != nil {
			return fmt.Errorf("list of sockets: %w", err)
		}
		for _, f := range families {
			if err := f.seedSYNSent(sockets); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f family) seedSYNSent(sockets []*netlink.Socket) error {
	var elements []nftables.SetElement
	for _, s := range sockets {
		from, ok1 := netip.AddrFromSlice(s.ID.Source)
		to, ok2 := netip.AddrFromSlice(s.ID.Destination)
		if s.State != netlink.TCP_SYN_SENT || !ok1 || !ok2 || from.Unmap().BitLen() != 8*int(f.size) {
			continue
		}
		key := setKey(from.Unmap(), s.ID.SourcePort, to.Unmap(), s.ID.DestinationPort)
		elements = append(elements, nftables.SetElement{Key: key})
	}
	if len(elements) == 0 {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	set := &nftables.Set{Table: &nftables.Table{Name: tableName, Family: f.table}, Name: setSYNSent}
	if err := c.SetAddElements(set, elements); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// setKey is what family.key loads; in a set, each part fills 32-bit registers.
func setKey(inside netip.Addr, insidePort uint16, outside netip.Addr, outsidePort uint16) []byte {
	key := binary.BigEndian.AppendUint16(inside.AsSlice(), insidePort)
	key = append(append(key, 0, 0), outside.AsSlice()...)
	return append(binary.BigEndian.AppendUint16(key, outsidePort), 0, 0)
}
