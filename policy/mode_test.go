package policy

import "testing"

func TestModes(t *testing.T) {
	for _, m := range append([]string{""}, Modes...) {
		if got, err := ParseMode(m); err != nil || string(got) != m {
			t.Errorf("%q: %q, %v", m, got, err)
		}
	}
	for _, m := range []string{"maybe", "Allow", "allow,deny", "deny,", ",", ",no-rebind", "no-rebind,deny",
		"no-rebind,no-rebind", "allow,no-rebind,no-rebind", " deny"} {
		if got, err := ParseMode(m); err == nil {
			t.Errorf("%q is taken as %q", m, got)
		}
	}
}

func TestAContainersModeOverItsNetworks(t *testing.T) {
	for _, test := range []struct {
		network, own Mode
		denies       bool
		noRebind     bool
	}{
		{"", "", false, false},
		{"deny", "", true, false},
		{"deny", "allow", false, false},
		{"allow", "deny", true, false},
		{"deny", "no-rebind", true, true},
		{"no-rebind", "", false, true},
		{"no-rebind", "deny", true, true},
		{"", "no-rebind", false, true},
		{"deny,no-rebind", "allow", false, true},
		{"allow,no-rebind", "deny,no-rebind", true, true},
		{"deny,no-rebind", "no-rebind", true, true},
	} {
		m := test.own.Over(test.network)
		if m.Denies() != test.denies || m.NoRebind() != test.noRebind {
			t.Errorf("%q over %q is %q: denies %v, no-rebind %v", test.own, test.network, m, m.Denies(), m.NoRebind())
		}
		if _, err := ParseMode(string(m)); err != nil {
			t.Errorf("%q over %q: %v", test.own, test.network, err)
		}
	}
}
