package network

import (
	"strings"
	"testing"
)

func TestMACsThatNoInterfaceHas(t *testing.T) {
	for s, words := range map[string]string{
		"00:00:00:00:00:00":       "no interface has it",
		"01:00:5e:00:00:01":       "group address",
		"ff:ff:ff:ff:ff:ff":       "group address",
		"02:42:ac:11:00":          "six bytes",
		"02:42:ac:11:00:02:03:04": "six bytes",
		"":                        "six bytes",
	} {
		if m, err := ParseMAC(s); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, %v, want %q", s, m, err, words)
		}
	}
	if m, err := ParseMAC("02:42:ac:11:00:02"); err != nil || m.String() != "02:42:ac:11:00:02" {
		t.Errorf("%v, %v", m, err)
	}
}
