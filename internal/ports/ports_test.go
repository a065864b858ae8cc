package ports

import (
	"net/netip"
	"testing"
)

func TestBindingsCountTheirPorts(t *testing.T) {
	for _, test := range []struct {
		b           Binding
		count, host int
	}{
		{Binding{Port: 80}, 1, 1},
		{Binding{Port: 80, End: 80, HostPort: 8080, HostEnd: 8080}, 1, 1},
		{Binding{Port: 80, HostPort: 8000, HostEnd: 8009}, 1, 10},
		{Binding{Port: 80, End: 89, HostPort: 8000, HostEnd: 8009}, 10, 10},
		{Binding{Port: 65535, End: 65535}, 1, 1},
		{Binding{Port: 1, End: 65535}, 65535, 1},
	} {
		if test.b.Count() != test.count || test.b.HostCount() != test.host {
			t.Errorf("%+v: %d ports of %d, want %d of %d", test.b, test.b.Count(), test.b.HostCount(), test.count,
				test.host)
		}
	}
}

func TestBindingsCover(t *testing.T) {
	b := Binding{Port: 80, End: 82, Proto: TCP}
	for p, want := range map[Port]bool{
		{79, TCP}: false, {80, TCP}: true, {82, TCP}: true, {83, TCP}: false, {80, UDP}: false,
	} {
		if b.Covers(p) != want {
			t.Errorf("%+v covers %+v: %v", b, p, !want)
		}
	}
	if one := (Binding{Port: 80, Proto: UDP}); !one.Covers(Port{80, UDP}) || one.Covers(Port{81, UDP}) {
		t.Error("a binding without an end covers another port than its own")
	}
}

func TestBoundIsAskedForAgain(t *testing.T) {
	b := Bound{Host: netip.MustParseAddrPort("192.0.2.1:8080"), Port: 80, Proto: UDP}
	again := b.Binding()
	if again.HostIP != b.Host.Addr() || again.HostPort != 8080 || again.HostCount() != 1 ||
		!again.Covers(Port{80, UDP}) || again.Count() != 1 {
		t.Errorf("%+v is asked for as %+v", b, again)
	}
}
