package daemon

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	vswitch "github.com/usernet/usernet/switch"
)

func TestDetailsShowMACAddressesAsText(t *testing.T) {
	mac := net.HardwareAddr{0x02, 0x42, 10, 0, 0, 2}
	b, err := json.Marshal(
		newPortDetails([]vswitch.PortInfo{{Name: "web", MAC: mac, Learned: []net.HardwareAddr{mac}}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"MAC":"02:42:0a:00:00:02"`, `"Learned":["02:42:0a:00:00:02"]`, `"Name":"web"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %s", b, want)
		}
	}
}
