package fabric

import (
	"bytes"
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

const (
	// maxPieces is how many segments become one super-frame: what one write to a TAP takes without copying.
	maxPieces = 64
	// maxJoined is the length of a super-frame's packet (RFC 791: 16 bits).
	maxJoined = 1<<16 - 1
)

// joiner puts consecutive segments of one flow together again, to one virtio super-frame, before they go into the
// switch. The frame that it holds points into what was received: flush before that is used again. The zero value is
// ready; one goroutine uses it.
type joiner struct {
	port   *vswitch.Port // nil: it holds nothing
	frame  vswitch.Frame
	pieces [maxPieces][]byte

	h      inner
	packet []byte // the first segment's packet
	size   int    // payload of each segment but the last
	count  int    // segments
	total  int    // payload of all
	seq    uint32 // of the next TCP segment
	ended  bool   // nothing can follow
	super  bool   // it was a super-frame when it came
	sum    checkState
}

// checkState is what is known of the first segment's checksum.
type checkState uint8

const (
	unchecked checkState = iota
	whole                // it is right, or left to be done
	wrong
)

// add takes a frame that has passed the checks. payload is what is behind its Ethernet header, h where its headers are.
// segment, if not 0, says that it is a super-frame as it is, and how much payload each of its segments has.
func (j *joiner) add(port *vswitch.Port, frame []byte, h *inner, payload []byte, segment int) {
	if j.port != nil {
		if j.follows(port, frame, h, payload) {
			j.append(h, payload)
			return
		}
		j.flush()
	}
	j.port, j.h, j.count, j.total, j.ended, j.sum = port, *h, 1, 0, true, unchecked
	copy(j.frame.Ethernet(), frame[:vswitch.EthernetHeaderLen])
	if h.length > 0 {
		payload = payload[:h.length] // what follows is padding
	}
	j.packet, j.pieces[0] = payload, payload
	if joinable(h, payload) {
		j.size = h.length - h.data
		j.total = j.size
		j.ended = false
		if h.proto == packet.ProtoTCP {
			j.seq = binary.BigEndian.Uint32(payload[h.l4+tcpSeq:]) + uint32(j.size)
			j.ended = payload[h.l4+tcpFlags]&tcpPSH != 0
		}
	}
	if j.super = segment > 0; j.super {
		j.size, j.total, j.ended = segment, h.length-h.data, true
	}
}

// joinable says whether others may follow a segment: TCP with data and ACK alone, or a datagram with a checksum,
// without options in the IP header.
func joinable(h *inner, p []byte) bool {
	if !h.transport() || h.length == h.data {
		return false
	}
	if h.v6 && h.l4 != packet.IPv6HeaderLen || !h.v6 && h.l4 != packet.IPv4HeaderLen {
		return false
	}
	if h.proto == packet.ProtoTCP {
		return p[h.l4+tcpFlags]&^tcpPSH == tcpACK
	}
	return int(binary.BigEndian.Uint16(p[h.l4+udpLength:])) == h.length-h.l4 &&
		binary.BigEndian.Uint16(p[h.l4+udpCheck:]) != 0
}

// follows says whether a segment continues the super-frame.
func (j *joiner) follows(port *vswitch.Port, frame []byte, h *inner, p []byte) bool {
	n := h.length - h.data
	if j.ended || j.port != port || h.proto != j.h.proto || h.v6 != j.h.v6 || h.l4 != j.h.l4 || h.data != j.h.data ||
		n > j.size || j.count == maxPieces || j.h.data+j.total+n > maxJoined || !joinable(h, p) ||
		!bytes.Equal(frame[:vswitch.EthernetHeaderLen], j.frame.Ethernet()) {
		return false
	}
	a, b := j.packet, p
	if h.v6 {
		if !bytes.Equal(a[:4], b[:4]) || a[7] != b[7] || !bytes.Equal(a[8:40], b[8:40]) {
			return false
		}
	} else if a[1] != b[1] || !bytes.Equal(a[6:10], b[6:10]) || !bytes.Equal(a[12:20], b[12:20]) {
		return false
	}
	a, b = a[h.l4:h.data], b[h.l4:h.data]
	if h.proto == packet.ProtoUDP {
		if !bytes.Equal(a[:udpLength], b[:udpLength]) {
			return false
		}
	} else if !bytes.Equal(a[:tcpSeq], b[:tcpSeq]) || binary.BigEndian.Uint32(b[tcpSeq:]) != j.seq ||
		!bytes.Equal(a[tcpSeq+4:tcpFlags], b[tcpSeq+4:tcpFlags]) || // acknowledgement, header length
		!bytes.Equal(a[tcpFlags+1:tcpCheck], b[tcpFlags+1:tcpCheck]) || // window
		!bytes.Equal(a[tcpCheck+2:], b[tcpCheck+2:]) { // urgent pointer, options
		return false
	}
	// The super-frame's checksum is made anew: it must not make a damaged segment good.
	if j.sum == unchecked {
		j.sum = wrong
		if intact(&j.h, j.packet) {
			j.sum = whole
		}
	}
	return j.sum == whole && intact(h, p)
}

// append puts a segment behind the others.
func (j *joiner) append(h *inner, p []byte) {
	data := p[h.data:h.length]
	j.pieces[j.count] = data
	j.count++
	j.total += len(data)
	j.ended = len(data) < j.size
	if h.proto == packet.ProtoTCP {
		j.seq += uint32(len(data))
		flags := p[h.l4+tcpFlags]
		j.packet[j.h.l4+tcpFlags] |= flags
		j.ended = j.ended || flags&tcpPSH != 0
	}
}

// intact says whether a segment's checksum is right, or was left to be done.
func intact(h *inner, p []byte) bool {
	t := p[h.l4:h.length]
	sum := checksum.Combine(h.pseudo(p), uint16(len(t)))
	return unfinished(h, p, sum) || checksum.Checksum(t, sum) == 0xffff
}

// unfinished says whether a checksum field has the sum of the pseudo header alone: a kernel that expected its network
// card to do the rest (CHECKSUM_PARTIAL), when there was none, as between virtual machines of one host and over veth.
func unfinished(h *inner, p []byte, pseudo uint16) bool {
	return binary.BigEndian.Uint16(p[h.l4+h.check():]) == pseudo
}

// flush gives the switch what the joiner holds.
func (j *joiner) flush() {
	if j.port == nil {
		return
	}
	var v vswitch.Virtio
	switch {
	case j.count > 1 || j.super:
		v = j.finish()
	case j.h.transport() && len(j.packet) == j.h.length &&
		unfinished(&j.h, j.packet, checksum.Combine(j.h.pseudo(j.packet), uint16(j.h.length-j.h.l4))):
		v.NeedsChecksum = true
	}
	if v.NeedsChecksum {
		v.ChecksumStart = uint16(vswitch.EthernetHeaderLen + j.h.l4)
		v.ChecksumOffset = uint16(j.h.check())
	}
	j.frame.PutVirtio(v)
	j.frame.Payload = j.pieces[:j.count]
	port := j.port
	j.port = nil
	port.Receive(&j.frame)
	clear(j.pieces[:j.count])
}

// finish writes the headers of the whole into the first segment, and returns what the virtio header says of it.
func (j *joiner) finish() vswitch.Virtio {
	p, n := j.packet, j.h.data+j.total
	j.h.setLength(p, n)
	if j.h.proto == packet.ProtoUDP {
		binary.BigEndian.PutUint16(p[j.h.l4+udpLength:], uint16(n-j.h.l4))
	}
	checksum.Put(p[j.h.l4+j.h.check():], checksum.Combine(j.h.pseudo(p), uint16(n-j.h.l4)))
	v := vswitch.Virtio{
		NeedsChecksum: true,
		HeaderLen:     uint16(vswitch.EthernetHeaderLen + j.h.data),
		GSOSize:       uint16(j.size),
		GSO:           vswitch.GSOUDP,
	}
	if j.h.proto == packet.ProtoTCP {
		v.GSO = vswitch.GSOTCPv4
		if j.h.v6 {
			v.GSO = vswitch.GSOTCPv6
		}
	}
	return v
}
