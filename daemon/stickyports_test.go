package daemon

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/usernet/usernet/network"
)

func TestChosenPortsAreAskedForAgain(t *testing.T) {
	any4, lo := netip.IPv4Unspecified(), netip.MustParseAddr("127.0.0.1")
	bound := []network.PortBinding{
		{HostIP: any4, HostPort: 40001, Port: 80, Proto: "tcp"}, {
			HostIP:   netip.IPv6Unspecified(),
			HostPort: 40001,
			Port:     80,
			Proto:    "tcp",
		},
		{HostIP: lo, HostPort: 40002, Port: 80, Proto: "tcp"}, {HostIP: any4, HostPort: 40003, Port: 81, Proto: "tcp"},
		{HostIP: any4, HostPort: 40004, Port: 80, Proto: "udp"}, {HostIP: any4, HostPort: 9001, Port: 90, Proto: "tcp"},
	}
	for _, test := range []struct {
		name string
		ask  network.PortBinding
		want string
	}{
		{"fixed", network.PortBinding{HostPort: 8080, Port: 80, Proto: "tcp"}, "[80>8080]"},
		{"a fixed range", network.PortBinding{HostPort: 8080, HostEnd: 8081, Port: 80, End: 81, Proto: "tcp"},
			"[80>8080]"},
		{"to be chosen", network.PortBinding{Port: 80, Proto: "tcp"}, "[80>40001]"},
		{"to be chosen on an address", network.PortBinding{HostIP: lo, Port: 80, Proto: "tcp"}, "[80>40002]"},
		{"another protocol", network.PortBinding{Port: 80, Proto: "udp"}, "[80>40004]"},
		{"several to be chosen", network.PortBinding{Port: 80, End: 82, Proto: "tcp"}, "[80>40001 81>40003 82>0]"},
		{"of a range of the host's", network.PortBinding{HostPort: 9000, HostEnd: 9005, Port: 90, Proto: "tcp"},
			"[90>9001]"},
		{"never chosen", network.PortBinding{Port: 7, Proto: "tcp"}, "[7>0]"},
	} {
		list, changed := reuseHostPorts([]network.PortBinding{test.ask}, bound)
		var got []string
		for _, p := range list {
			got = append(got, fmt.Sprintf("%d>%d", p.Port, p.HostPort))
		}
		if fmt.Sprint(got) != test.want || changed == (test.ask.HostPort == list[0].HostPort) {
			t.Errorf("%s: %v, %v, wanted %s", test.name, got, changed, test.want)
		}
	}
}
