package client

import (
	"context"
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// fakeNetworks has one network or none. Where others is true, another call makes it while this one does.
type fakeNetworks struct {
	there, others bool
	made          int
}

func (f *fakeNetworks) Network(context.Context, string) (n dockernet.Inspect, err error) {
	if !f.there {
		return n, errdefs.ErrNotFound
	}
	n.ID = "1"
	return n, nil
}

func (f *fakeNetworks) NetworkCreate(context.Context, network.NetworkSpec) (made api.CreatedNetwork, err error) {
	f.there = true
	f.made++
	if f.others {
		return made, errdefs.ErrConflict
	}
	return made, nil
}

func TestANetworkIsMadeWhereItIsMissing(t *testing.T) {
	refused := errors.New("create is false")
	for _, test := range []struct {
		name string
		d    fakeNetworks
		spec error
		want error
		made int
	}{
		{"there", fakeNetworks{there: true}, nil, nil, 0},
		{"missing", fakeNetworks{}, nil, nil, 1},
		{"two at once", fakeNetworks{others: true}, nil, nil, 1},
		{"not to be made", fakeNetworks{}, refused, refused, 0},
	} {
		n, err := EnsureNetwork(t.Context(), &test.d, "n", func(missing error) (network.NetworkSpec, error) {
			if !errdefs.IsNotFound(missing) {
				t.Errorf("%s: missing, as %v", test.name, missing)
			}
			return network.NetworkSpec{}, test.spec
		})
		if !errors.Is(err, test.want) || test.d.made != test.made || err == nil && n.ID != "1" {
			t.Errorf("%s: %v, %v, made %d times", test.name, n.ID, err, test.d.made)
		}
	}
}

// TestNetworksWithInterfaces: drivers of a newer daemon may have them.
func TestNetworksWithInterfaces(t *testing.T) {
	for driver, want := range map[string]bool{
		"bridge": true, "macvlan": true, "host": false, "null": false, "new": true,
	} {
		var n dockernet.Inspect
		n.Driver = driver
		if got := HasInterfaces(n); got != want {
			t.Errorf("%s: %v, want %v", driver, got, want)
		}
	}
}
