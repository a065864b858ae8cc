package hostconn

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"

	"github.com/usernet/usernet/overlay"
)

// Request is which connection a host asks for.
type Request struct {
	From     overlay.HostID // who asks; Dial fills it in
	VNI      uint32         // the network
	Src, Dst netip.AddrPort // the container that connects, and the one of the host that is asked
}

// A request, and its answer:
//
//	0        1      17       21             37           39                  55                57
//	version  host   network  source address source port  destination address destination port  authentication
//	status   authentication
//
// Numbers are big endian; IPv4 addresses are mapped to IPv6 (RFC 4291, 2.5.5.2).
const (
	version = 1

	saidLen    = 57
	requestLen = saidLen + sha256.Size
	answerLen  = 1 + sha256.Size

	statusAccepted = 1
	statusRefused  = 2
)

var errRequest = errors.New("a request that makes no sense")

// request is a request as it is sent.
func (s *secret) request(r Request) (b [requestLen]byte) {
	b[0] = version
	_, _ = hex.Decode(b[1:17], []byte(r.From)) // ids were parsed
	binary.BigEndian.PutUint32(b[17:], r.VNI)
	for at, a := range map[int]netip.AddrPort{21: r.Src, 39: r.Dst} {
		ip := a.Addr().As16()
		copy(b[at:], ip[:])
		binary.BigEndian.PutUint16(b[at+16:], a.Port())
	}
	copy(b[saidLen:], s.sum(fromDialing, b[:saidLen]))
	return b
}

// parseRequest reads a request. Its authentication is not looked at: the host in it says by which key.
func parseRequest(b [requestLen]byte) (Request, error) {
	r := Request{From: overlay.HostID(hex.EncodeToString(b[1:17])), VNI: binary.BigEndian.Uint32(b[17:])}
	end := func(at int) netip.AddrPort {
		a := netip.AddrFrom16([16]byte(b[at : at+16])).Unmap()
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[at+16:]))
	}
	r.Src, r.Dst = end(21), end(39)
	if b[0] != version || r.Src.Port() == 0 || r.Dst.Port() == 0 || r.Src.Addr().Is4() != r.Dst.Addr().Is4() {
		return Request{}, errRequest
	}
	return r, nil
}

// asked says whether a request is the other host's.
func (s *secret) asked(b [requestLen]byte) bool {
	return hmac.Equal(b[saidLen:], s.sum(fromDialing, b[:saidLen]))
}

// answer is the answer to a request as it is sent.
func (s *secret) answer(request [requestLen]byte, status byte) (b [answerLen]byte) {
	b[0] = status
	copy(b[1:], s.sum(fromAccepting, request[:], b[:1]))
	return b
}

// answered says whether an answer is the other host's, to this request.
func (s *secret) answered(request [requestLen]byte, b [answerLen]byte) bool {
	return hmac.Equal(b[1:], s.sum(fromAccepting, request[:], b[:1]))
}
