package daemon

import (
	"errors"
	"strings"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/overlay/uplink"
)

// TestAVLANThatAnotherNetworkHas is told with that network's name, and leads to the topic about uplinks.
func TestAVLANThatAnotherNetworkHas(t *testing.T) {
	for _, test := range []struct {
		taken uplink.TakenError
		words []string
	}{
		{uplink.TakenError{Device: "ux", VLAN: 20, Network: "lan", Apart: true}, []string{"VLAN 20 of uplink ux",
			"network lan", "--vlan 20"}},
		{uplink.TakenError{Device: "ux", VLAN: 20, Network: "other"}, []string{"VLAN 20 of uplink ux", "other"}},
		{uplink.TakenError{Device: "ux", Network: "other"}, []string{"uplink ux", "other"}},
	} {
		err := uplinkError("v20", &test.taken)
		if errdefs.Class(err) != errdefs.ErrConflict || errdefs.TopicOf(err) != errdefs.TopicUplink {
			t.Errorf("%v: class %v, topic %s", err, errdefs.Class(err), errdefs.TopicOf(err))
		}
		for _, w := range append(test.words, "network v20: ") {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v: it does not say %q", err, w)
			}
		}
		if strings.Contains(err.Error(), "VLAN 0") {
			t.Errorf("%v: frames without a tag are in no VLAN", err)
		}
	}
	if err := uplinkError("v20", errors.New("x")); errdefs.Class(err) != errdefs.ErrUnavailable {
		t.Errorf("%v: class %v", err, errdefs.Class(err))
	}
}
