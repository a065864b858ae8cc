package network

import (
	"fmt"
	"net"

	"github.com/usernet/usernet/internal/errdefs"
)

// ParseMAC reads a unicast Ethernet address such as 02:42:ac:11:00:02.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, errdefs.Invalid("invalid MAC address %q: give six bytes such as 02:42:ac:11:00:02", s)
	}
	if hw[0]&1 != 0 {
		return MAC{}, errdefs.Invalid("invalid MAC address %q: it is a group address, not a single interface's", s)
	}
	if MAC(hw) == (MAC{}) {
		return MAC{}, errdefs.Invalid("invalid MAC address %q: no interface has it", s)
	}
	return MAC(hw), nil
}

// String is the usual form, or "" for the zero MAC.
func (m MAC) String() string {
	if m == (MAC{}) {
		return ""
	}
	return net.HardwareAddr(m[:]).String()
}

// MarshalText is String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is ParseMAC; "" is the zero MAC.
func (m *MAC) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*m = MAC{}
		return nil
	}
	v, err := ParseMAC(string(b))
	if err != nil {
		return fmt.Errorf("stored address: %w", err)
	}
	*m = v
	return nil
}
