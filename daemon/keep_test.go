package daemon

import (
	"strings"
	"testing"

	"github.com/usernet/usernet/api"
)

func TestKeptNamesAreRead(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for _, f := range []api.SandboxFile{
		{Kind: api.FileTAP, Container: id, Endpoint: id, Interface: "eth0"},
		{Kind: api.FileTAP, Container: id, Endpoint: id, Interface: "fifteen-letters"},
		{Kind: api.FileDNSPacket, Container: id},
		{Kind: api.FileDNSListener, Container: id},
	} {
		name := keptName(f)
		if got, ok := ParseKept(name); !ok || got != f {
			t.Errorf("%s is read as %+v, %v", name, got, ok)
		}
		if !keepable(name) {
			t.Errorf("%s is no name that a service manager takes", name)
		}
	}
	for _, name := range []string{"", "usernet-sandbox", "usernet-sandbox/tap", "usernet-published-tcp-0.0.0.0-80", "other/tap/c/e/eth0", "connection"} {
		if f, ok := ParseKept(name); ok {
			t.Errorf("%q is read as %+v", name, f)
		}
	}
	for _, odd := range []string{"eth:0", "eth 0", "eth\n0", "\u00e9th0", strings.Repeat("x", 256)} {
		if keepable(odd) {
			t.Errorf("%q is no name that a service manager takes", odd)
		}
	}
}
