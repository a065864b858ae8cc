package vswitch

import (
	"bytes"
	"encoding/binary"

	"github.com/usernet/usernet/internal/packet"
)

// guard checks that a frame comes from the port's own addresses and claims nobody else's. It returns verdictPass, or
// why the frame is dropped. EtherTypes that it does not know pass: hosts accept no addresses by them.
func (p *Port) guard(r *portState, f *Frame) Reason {
	if f.src() != r.mac {
		return DropMAC
	}
	payload := f.firstPiece()
	switch t := f.EtherType(); {
	case t == EtherTypeIPv4:
		return p.guardIPv4(r, f, payload)
	case t == EtherTypeIPv6:
		return p.guardIPv6(r, f, payload)
	case t == EtherTypeARP:
		return r.guardARP(payload)
	case IsTag(t):
		return DropVLAN
	}
	return verdictPass
}

// wellFormed is what is checked of a frame from a port without the guard: addresses may be anybody's, headers that are
// cut short or contradict themselves reach neither netstack nor a kernel. The first fragment may be shorter than its
// transport header, as the receiver that reassembles a packet checks it again.
func wellFormed(f *Frame) bool {
	switch t := f.EtherType(); t {
	case EtherTypeIPv4, EtherTypeIPv6:
		h, ok := parseIP(t, f.firstPiece())
		return ok || h.Fragment && !h.Later
	}
	return true
}

// guardARP checks an ARP packet for IPv4 over Ethernet (RFC 826): whatever it says about the sender is learnt by
// those who hear it, in requests as in replies.
func (r *portState) guardARP(p []byte) Reason {
	const (
		request, reply = 1, 2
		length         = 28
	)
	if len(p) < length {
		return DropMalformed
	}
	if !bytes.Equal(p[:6], []byte{0, 1, 8, 0, 6, 4}) { // Ethernet, IPv4, their address lengths
		return DropARP
	}
	op := binary.BigEndian.Uint16(p[6:])
	senderMAC, sender := p[8:14], p[14:18]
	if op != request && op != reply || keyOf(senderMAC) != r.mac {
		return DropARP
	}
	if r.has4(sender) || op == request && isZero(sender) { // 0.0.0.0 probes (RFC 5227)
		return verdictPass
	}
	return DropARP
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// parseIP walks the headers of an IP packet in a frame of a type.
func parseIP(etherType uint16, p []byte) (h packet.Headers, ok bool) {
	switch etherType {
	case EtherTypeIPv4:
		return packet.Parse(false, p)
	case EtherTypeIPv6:
		return packet.Parse(true, p)
	}
	return h, false
}
