package policy

import (
	"net/netip"
	"strconv"
	"strings"
)

// Verdict is what a policy says about a destination, and why.
type Verdict struct {
	Refusal *Refusal // why it is refused; nil: it is allowed
	Rule    *Rule    // what allows it; nil: nothing has to

	pinned bool // by a name that the container has asked for
}

// Explain says what Decide would, and why; nothing changes by it. With a name, in lower case and without a dot at its
// end, it is about a container that was just given the address for it.
func (p *Policy) Explain(proto uint8, dst netip.AddrPort, name string) Verdict {
	return p.judge(proto, dst, name)
}

// String says what is decided, and by which flag.
func (v Verdict) String() string {
	switch {
	case v.Refusal != nil:
		return v.Refusal.Rule
	case v.Rule == nil:
		return "allowed: no --egress deny is in force"
	case v.Rule.prefix.IsValid():
		return "allowed by --allow-egress " + v.Rule.text
	}
	return "allowed by --allow-egress " + v.Rule.text + ", as the container was given this address for such a name"
}

// Remedy is the flag that would allow a destination that is refused; "": it is allowed. name is what the address was
// given for, "" where it was asked for by itself.
func (v Verdict) Remedy(dst netip.AddrPort, name string) string {
	if v.Refusal == nil {
		return ""
	}
	what := strings.TrimSuffix(name, ".")
	if what == "" || v.Refusal == refusedSpecial {
		what = dst.Addr().Unmap().String()
		if dst.Port() != 0 && dst.Addr().Unmap().Is6() {
			what = "[" + what + "]"
		}
	}
	if dst.Port() != 0 {
		what += ":" + strconv.Itoa(int(dst.Port()))
	}
	return "--allow-egress " + what
}
