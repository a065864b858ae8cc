package bgp

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// open is an OPEN message (RFC 4271, section 4.2).
type open struct {
	asn      uint32
	hold     time.Duration
	id       netip.Addr
	families []Family
	as4      bool // it speaks four-byte AS numbers (RFC 6793)
}

// Parts of an OPEN.
const (
	version4     = 4
	openLen      = 10    // without optional parameters
	asTrans      = 23456 // in the place of a number of four bytes (RFC 6793, section 9)
	paramCaps    = 2     // RFC 5492
	paramExtends = 255   // RFC 9072

	capMultiprotocol   = 1
	capGracefulRestart = 64
	capFourOctetAS     = 65
)

// appendOpen writes this speaker's. The capability of graceful restart names no family and no time: it says that the
// speaker marks the end of its routes, and has the neighbour do so (RFC 4724, section 3). Route refresh is not offered:
// there is nothing that would have to be told again.
func appendOpen(b []byte, o open) []byte {
	return message(b, msgOpen, func(b []byte) []byte {
		short := o.asn
		if short > 0xffff {
			short = asTrans
		}
		b = append(b, version4)
		b = binary.BigEndian.AppendUint16(b, uint16(short))
		b = binary.BigEndian.AppendUint16(b, uint16(o.hold/time.Second))
		b = append(b, o.id.AsSlice()...)
		var caps []byte
		for _, f := range o.families {
			caps = append(caps, capMultiprotocol, 4, byte(f>>24), byte(f>>16), 0, byte(f))
		}
		caps = append(caps, capGracefulRestart, 2, 0, 0)
		caps = binary.BigEndian.AppendUint32(append(caps, capFourOctetAS, 4), o.asn)
		return append(append(b, byte(2+len(caps)), paramCaps, byte(len(caps))), caps...)
	})
}

// parseOpen reads the body of an OPEN.
func parseOpen(b []byte) (o open, err error) {
	if len(b) < openLen {
		return o, &notification{code: errHeader, subcode: headerBadLength}
	}
	if b[0] != version4 {
		return o, &notification{code: errOpen, subcode: openBadVersion, data: []byte{0, version4}}
	}
	o.asn = uint32(binary.BigEndian.Uint16(b[1:]))
	o.hold = time.Duration(binary.BigEndian.Uint16(b[3:])) * time.Second
	o.id = netip.AddrFrom4([4]byte(b[5:]))
	params, size := b[openLen:], 1 // of a parameter's length
	if total := int(b[9]); total == 255 && len(params) >= 3 && params[0] == paramExtends {
		size = 2
		params = params[1:]
		total = int(binary.BigEndian.Uint16(params))
		params = params[2:]
		if total != len(params) {
			return o, openError(0, "parameters of %d bytes in a message of %d", total, len(params))
		}
	} else if total != len(params) {
		return o, openError(0, "parameters of %d bytes in a message of %d", total, len(params))
	}
	for len(params) > 0 {
		if len(params) < 1+size {
			return o, openError(0, "a parameter that is cut short")
		}
		kind, n := params[0], int(params[1])
		if size == 2 {
			n = int(binary.BigEndian.Uint16(params[1:]))
		}
		if params = params[1+size:]; len(params) < n {
			return o, openError(0, "a parameter that is cut short")
		}
		if kind == paramCaps {
			if err := o.capabilities(params[:n]); err != nil {
				return o, err
			}
		}
		params = params[n:]
	}
	return o, nil
}

// capabilities reads those of one parameter.
func (o *open) capabilities(b []byte) error {
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return openError(0, "a capability that is cut short")
		}
		code, v := b[0], b[2:2+int(b[1])]
		b = b[2+len(v):]
		switch {
		case code == capMultiprotocol && len(v) == 4:
			f := Family(binary.BigEndian.Uint16(v))<<16 | Family(v[3])
			if len(o.families) < len(families) && isOffered(f) && !o.has(f) {
				o.families = append(o.families, f)
			}
		case code == capFourOctetAS && len(v) == 4:
			o.asn, o.as4 = binary.BigEndian.Uint32(v), true
		}
	}
	return nil
}

func isOffered(f Family) bool {
	for _, g := range families {
		if f == g {
			return true
		}
	}
	return false
}

func (o *open) has(f Family) bool {
	for _, g := range o.families {
		if f == g {
			return true
		}
	}
	return false
}

// accept says why a neighbour's OPEN does not fit: want is the AS that it is to be in.
func (o *open) accept(want uint32, me *self) error {
	switch {
	case o.asn != want:
		return openError(openBadAS, "it is in AS %d, and AS %d is expected", o.asn, want)
	case o.id.IsUnspecified(), o.id == me.id:
		return openError(openBadID, "its router id is %v", o.id)
	case o.hold != 0 && o.hold < MinHold:
		return openError(openBadHoldTime, "its hold time is %v", o.hold)
	case !o.as4:
		return openError(openUnsupportedCapability, "it does not know AS numbers of four bytes (RFC 6793)")
	}
	return nil
}
