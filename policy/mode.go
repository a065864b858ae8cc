package policy

import (
	"fmt"
	"strings"
)

// Mode is what happens to destinations that no rule is about: allow or deny, and after a comma no-rebind, which
// refuses private addresses as answers for public names (see Policy.AllowAnswer). The zero Mode allows.
type Mode string

// The modes.
const (
	Allow    Mode = "allow"
	Deny     Mode = "deny"
	NoRebind Mode = "no-rebind" // alone, or behind one of the others
)

// Modes are the values that ParseMode takes, apart from the empty one.
var Modes = []string{"allow", "deny", "no-rebind", "allow,no-rebind", "deny,no-rebind"}

// ParseMode reads a mode.
func ParseMode(s string) (Mode, error) {
	parts := strings.Split(s, ",")
	for i, part := range parts {
		switch m := Mode(part); {
		case s == "":
		case i == 0 && (m == Allow || m == Deny):
		case i == len(parts)-1 && i < 2 && m == NoRebind:
		default:
			return "", fmt.Errorf("egress %q: give allow or deny, no-rebind, or both with a comma between", s)
		}
	}
	return Mode(s), nil
}

// Denies says whether destinations are refused that no rule allows.
func (m Mode) Denies() bool { return m == Deny || m == Deny+","+NoRebind }

// NoRebind says whether private addresses are refused as answers for public names.
func (m Mode) NoRebind() bool { return strings.HasSuffix(string(m), string(NoRebind)) }

// Over is the mode of a container whose own is m, on a network whose mode is network: its own allow or deny replaces
// the network's, and no-rebind holds if either says so.
func (m Mode) Over(network Mode) Mode {
	result := m
	if m == "" || m == NoRebind {
		result = network
	}
	if (m.NoRebind() || network.NoRebind()) && !result.NoRebind() {
		result = Mode(strings.TrimPrefix(string(result+","+NoRebind), ","))
	}
	return result
}
