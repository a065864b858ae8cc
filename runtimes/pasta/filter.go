package pasta

import (
	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// Types of messages that --no-icmp and --no-ndp are about: RFC 792; RFC 4443, 4.1; RFC 4861, 4.1 to 4.5.
const (
	icmpEcho         = 8
	icmp6Echo        = 128
	icmp6RouterAsk   = 133 // the first of neighbour discovery
	icmp6RedirectMsg = 137 // the last
)

// filter says of each frame of the namespace whether it may go on; nil: all may.
func (o *Options) filter() func(*vswitch.Frame) bool {
	if !o.NoTCP && !o.NoUDP && !o.NoICMP && !o.NoNDP {
		return nil
	}
	return func(f *vswitch.Frame) bool {
		if len(f.Payload) == 0 {
			return true
		}
		p := f.Payload[0]
		var h packet.Headers
		var ok bool
		switch f.EtherType() {
		case vswitch.EtherTypeIPv4:
			h, ok = packet.ParseIPv4(p)
		case vswitch.EtherTypeIPv6:
			h, ok = packet.ParseIPv6(p)
		}
		switch {
		case !ok:
			return true // malformed, as others say, or not IP
		case !h.Later:
			return o.passes(h.Proto, p[h.Transport:min(max(h.Length, h.Transport), len(p))])
		case h.V6:
			return true // without its first fragment nobody can make anything of it
		}
		return o.passes(h.Proto, nil)
	}
}

// passes says whether a packet with this upper layer may go on.
func (o *Options) passes(proto uint8, upper []byte) bool {
	switch proto {
	case packet.ProtoTCP:
		return !o.NoTCP
	case packet.ProtoUDP:
		return !o.NoUDP
	case packet.ProtoICMP:
		return !o.NoICMP || len(upper) == 0 || upper[0] != icmpEcho
	case packet.ProtoICMPv6:
		if len(upper) == 0 {
			return true
		}
		ndp := upper[0] >= icmp6RouterAsk && upper[0] <= icmp6RedirectMsg
		return !(o.NoICMP && upper[0] == icmp6Echo || o.NoNDP && ndp)
	}
	return true
}
