package vswitch

import (
	"encoding/binary"
	"errors"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/usernet/usernet/internal/packet"
)

// errVirtio is returned for a frame whose virtio header contradicts it. Frames of untrusted ports have been checked.
var errVirtio = errors.New("virtio header contradicts the frame")

const (
	tcpFIN, tcpPSH, tcpCWR = 0x01, 0x08, 0x80
	tcpSeq, tcpFlags       = 4, 13 // offsets in the TCP header
)

// scratch is where frames are put together that cannot be sent as they are.
type scratch struct {
	whole   [EthernetHeaderLen + MaxPayload]byte
	segment [EthernetHeaderLen + MaxPayload]byte
}

var scratchPool = sync.Pool{New: func() any { return new(scratch) }}

// Plain says that the frame can go out without its virtio header: nothing is left to be done.
func (f *Frame) Plain() bool { return f.Header[0]&virtioNeedsChecksum == 0 && f.Header[1] == 0 }

// Segments does what the virtio header leaves to be done, for a device that has no such header: it calls emit with each
// complete Ethernet frame, which is valid until emit returns. It stops at the first error.
func (f *Frame) Segments(emit func(frame []byte) error) error {
	if f.PayloadLen() > MaxPayload {
		return errVirtio
	}
	s := scratchPool.Get().(*scratch)
	defer scratchPool.Put(s)
	n := copy(s.whole[:], f.Ethernet())
	for _, p := range f.Payload {
		n += copy(s.whole[n:], p)
	}
	whole := s.whole[:n]
	v := f.Virtio()
	if v.GSO != GSONone {
		flat := Frame{Header: f.Header, Payload: [][]byte{whole[EthernetHeaderLen:]}}
		h, ok := flat.superFrame(v)
		if !ok {
			return errVirtio
		}
		return s.cut(whole, h, int(v.GSOSize), emit)
	}
	if v.NeedsChecksum {
		start, at := int(v.ChecksumStart), int(v.ChecksumStart)+int(v.ChecksumOffset)
		if at+2 > n {
			return errVirtio
		}
		// The field holds the sum of the pseudo header. An all-zero sum is sent as ones: zero means none (RFC 768), and
		// to TCP both are the same.
		checksum.Put(whole[at:], nonZero(^checksum.Checksum(whole[start:], 0)))
	}
	return emit(whole)
}

func nonZero(sum uint16) uint16 {
	if sum == 0 {
		return 0xffff
	}
	return sum
}

// cut makes segments of a TCP or UDP super-frame.
func (s *scratch) cut(whole []byte, h packet.Headers, size int, emit func([]byte) error) error {
	head := EthernetHeaderLen + h.Payload
	end := min(len(whole), EthernetHeaderLen+h.Length)
	if head > end {
		return errVirtio
	}
	data := whole[head:end]
	copy(s.segment[:], whole[:head])
	ip, l4 := s.segment[EthernetHeaderLen:], s.segment[EthernetHeaderLen+h.Transport:]
	var seq uint32
	var flags byte
	if h.Proto == packet.ProtoTCP {
		seq, flags = binary.BigEndian.Uint32(l4[tcpSeq:]), l4[tcpFlags]
	}
	id := binary.BigEndian.Uint16(ip[4:]) // IPv4 only
	for at := 0; at == 0 || at < len(data); at += size {
		n := copy(s.segment[head:], data[at:min(at+size, len(data))])
		length := h.Payload + n
		if h.V6 {
			binary.BigEndian.PutUint16(ip[4:], uint16(length-packet.IPv6HeaderLen))
		} else {
			binary.BigEndian.PutUint16(ip[2:], uint16(length))
			binary.BigEndian.PutUint16(ip[4:], id)
			id++
			checksum.Put(ip[10:], 0)
			checksum.Put(ip[10:], ^checksum.Checksum(ip[:h.Transport], 0))
		}
		if h.Proto == packet.ProtoTCP {
			binary.BigEndian.PutUint32(l4[tcpSeq:], seq+uint32(at))
			l4[tcpFlags] = flags
			if at+size < len(data) {
				l4[tcpFlags] &^= tcpFIN | tcpPSH
			}
			if at > 0 {
				l4[tcpFlags] &^= tcpCWR // RFC 3168: once per window
			}
		} else {
			binary.BigEndian.PutUint16(l4[4:], uint16(length-h.Transport))
		}
		putChecksum(h, ip, l4[:length-h.Transport])
		if err := emit(s.segment[:head+n]); err != nil {
			return err
		}
	}
	return nil
}

// putChecksum computes the checksum of the transport header and payload l4, with the pseudo header of ip.
func putChecksum(h packet.Headers, ip, l4 []byte) {
	addrs := ip[12:20]
	if h.V6 {
		addrs = ip[8:40]
	}
	at := h.ChecksumOffset()
	checksum.Put(l4[at:], 0)
	sum := checksum.Checksum(addrs, 0)
	sum = checksum.Combine(sum, uint16(h.Proto))
	sum = checksum.Combine(sum, uint16(len(l4)))
	checksum.Put(l4[at:], nonZero(^checksum.Checksum(l4, sum)))
}
