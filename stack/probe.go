package stack

import (
	"errors"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Probe makes a container answer for a connection that it believes to have with src, which the gateway does not know:
// to a segment that is out of its window it sends an acknowledgment (RFC 9293, section 3.10.7.4), and the gateway
// resets what it has no connection for. Of two segments half the sequence space apart one is outside any window.
func (g *Gateway) Probe(src, dst netip.AddrPort) error {
	return errors.Join(g.bareACK(src, dst, 0), g.bareACK(src, dst, 1<<31))
}

func (g *Gateway) bareACK(src, dst netip.AddrPort, seq uint32) error {
	v := buffer.NewViewSize(header.TCPMinimumSize)
	h := header.TCP(v.AsSlice())
	h.Encode(&header.TCPFields{
		SrcPort:    src.Port(),
		DstPort:    dst.Port(),
		SeqNum:     seq,
		DataOffset: header.TCPMinimumSize,
		Flags:      header.TCPFlagAck,
	})
	from, to := addressOf(src.Addr()), addressOf(dst.Addr())
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, from, to, header.TCPMinimumSize)
	h.SetChecksum(^h.CalculateChecksum(sum))
	return g.write(src.Addr(), dst.Addr(), header.TCPProtocolNumber, v)
}
