package netavark

import (
	"fmt"
	"testing"

	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// TestANameServerIsToldOnce: by the network that a container was attached to first, also where it is asked again.
func TestANameServerIsToldOnce(t *testing.T) {
	made := api.AttachReply{Container: network.Container{Endpoints: []*network.Endpoint{
		{Key: "", Interface: "by-hand"},
		{Key: "netavark/n1/c", Interface: "eth0"},
		{Key: "netavark/n2/c", Interface: "eth1"},
	}}}
	for key, want := range map[string]string{"netavark/n1/c": "[127.0.0.11]", "netavark/n2/c": "[]"} {
		s := answer(made, dockernet.Inspect{}, key)
		if got := fmt.Sprint(s.DNSServerIPs); got != want || s.DNSServerIPs == nil || len(s.Interfaces) != 1 {
			t.Errorf("%s: name servers %s, want %s; %+v", key, got, want, s)
		}
	}
}
