package network

import "testing"

// TestDriversAreSound holds the list to what the model relies on.
func TestDriversAreSound(t *testing.T) {
	names, predefined := map[string]bool{}, map[string]bool{}
	for _, d := range Drivers {
		switch {
		case d.Name == "" || names[d.Name]:
			t.Errorf("%q is the name of none or two", d.Name)
		case d.Scope == "":
			t.Errorf("%s has no scope", d.Name)
		case d.Predefined != "" && predefined[d.Predefined]:
			t.Errorf("two drivers have the network %s", d.Predefined)
		case d.Single && d.Predefined == "":
			t.Errorf("there can be no network of %s", d.Name)
		case d.HostNamespace && d.Interfaces:
			t.Errorf("%s gives interfaces in the host's namespace", d.Name)
		}
		names[d.Name], predefined[d.Predefined] = true, true
		if got, ok := DriverOf(d.Name); !ok || got.Name != d.Name {
			t.Errorf("%s is not found: %+v", d.Name, got)
		}
	}
	if d, ok := DriverOf(NoneName); !ok || d.Name != DriverNull {
		t.Errorf("none is %+v", d)
	}
	if d, ok := DriverOf("ipvlan"); ok {
		t.Errorf("ipvlan is %+v", d)
	}
}

// TestPredefinedNetworksAreOfTheirDrivers opens a model and looks at what is there.
func TestPredefinedNetworksAreOfTheirDrivers(t *testing.T) {
	m := open(t, t.TempDir())
	for _, d := range Drivers {
		if d.Predefined == "" {
			continue
		}
		n, err := m.Network(d.Predefined)
		if err != nil || n.Driver != d.Name || !n.IsPredefined() || n.HasInterfaces() != d.Interfaces ||
			n.IsHost() != d.HostNamespace || (len(n.Pools) > 0) != d.Interfaces {
			t.Errorf("%s: %+v, %v", d.Predefined, n, err)
		}
		if _, _, err := m.CreateNetwork(NetworkSpec{Name: "another-" + d.Name,
			Driver: d.Name}); (err != nil) != d.Single {
			t.Errorf("another network of %s: %v", d.Name, err)
		}
	}
}

func TestTCPStaysLocal(t *testing.T) {
	for _, c := range []struct {
		driver  string
		options map[string]string
		want    bool
	}{
		{DriverBridge, nil, true},
		{DriverBridge, map[string]string{"usernet.bgp": "subnets"}, false},
		{DriverOverlay, nil, false},
		{DriverOverlay, map[string]string{"usernet.tcp": TCPFrames}, false},
		{DriverOverlay, map[string]string{"usernet.tcp": TCPSockets}, true},
		{DriverVXLAN, nil, false},
		{DriverFlannel, nil, false},
		{DriverMacvlan, nil, false},
	} {
		n := &Network{Driver: c.driver, Options: c.options}
		if n.CheckOptions() != nil {
			t.Errorf("%s %v: %v", c.driver, c.options, n.CheckOptions())
		}
		if got := n.TCPStaysLocal(); got != c.want {
			t.Errorf("%s %v: %v", c.driver, c.options, got)
		}
	}
}
