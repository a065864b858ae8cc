package stack

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/internal/rate"
)

// A container's ICMP errors are bounded, as a router's have to be (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f): a container
// that sends packets that lead nowhere would be sent one for each of them. The numbers are those of Linux
// (net.ipv4.icmp_msgs_per_sec and icmp_msgs_burst before Linux 6.14) and of netstack's own errors, for each container
// instead of all together, so that a neighbour hears of its errors beside a flood.
const (
	errorsPerSecond = 1000
	errorsBurst     = 50
	errorBuckets    = 64 // addresses with the same hash share one
)

// errorRate bounds the errors to each address. The zero value is not one: newErrorRate makes it.
type errorRate struct {
	seed    maphash.Seed
	buckets [errorBuckets]struct {
		sync.Mutex // guards what follows
		rate.Bucket
	}
}

func newErrorRate() *errorRate {
	r := &errorRate{seed: maphash.MakeSeed()}
	for i := range r.buckets {
		r.buckets[i].Bucket = rate.Bucket{PerSecond: errorsPerSecond, Burst: errorsBurst}
	}
	return r
}

// allow says whether an error may be sent to an address now, and counts it.
func (r *errorRate) allow(to netip.Addr, now time.Time) bool {
	b := &r.buckets[maphash.Comparable(r.seed, to)%errorBuckets]
	b.Lock()
	defer b.Unlock()
	return b.Allow(now, 1)
}

var errErrorRate = errors.New("more ICMP errors than one container is sent in a second")

// sendError tells a container of a problem with its packet, of which original is the beginning. It may be lost.
func (g *Gateway) sendError(p packet.Problem, to netip.Addr, original []byte) {
	_ = g.WriteICMP(g.errorSource(to), to, packet.ICMPError(p, to, original))
}

// WriteICMP sends an ICMP message into the network in the name of src; its checksum is completed here. It fails for
// errors beyond the rate that dst may have.
func (g *Gateway) WriteICMP(src, dst netip.Addr, message []byte) error {
	if packet.IsICMPError(message[0], src.Is6()) && !g.errors.allow(dst, time.Now()) {
		return errErrorRate
	}
	v := buffer.NewViewWithData(message)
	b := v.AsSlice()
	b[2], b[3] = 0, 0
	proto := header.ICMPv4ProtocolNumber
	initial := uint16(0)
	if src.Is6() {
		proto = header.ICMPv6ProtocolNumber
		initial = header.PseudoHeaderChecksum(proto, addressOf(src), addressOf(dst), uint16(len(b)))
	}
	binary.BigEndian.PutUint16(b[2:], ^checksum.Checksum(b, initial))
	return g.write(src, dst, proto, v)
}
