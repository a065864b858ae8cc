package network

import (
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestRestartPolicies(t *testing.T) {
	for text, want := range map[string]string{
		"no": "", "": "", "always": "", "unless-stopped": "", "on-failure": "", "on-failure:3": "",
		"sometimes":     "unknown policy 'sometimes'",
		"always:1":      "maximum retry count can only be used with 'on-failure'",
		"on-failure:-1": "cannot be negative",
		"on-failure:x":  "must be an integer",
	} {
		if _, err := ParseRestartPolicy(text); (err == nil) != (want == "") ||
			err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestWhatRunsAgain has containers with each policy end.
func TestWhatRunsAgain(t *testing.T) {
	for _, test := range []struct {
		policy        string
		code, count   int
		stopped       bool
		again, atBoot bool
	}{
		{"no", 1, 0, false, false, false},
		{"always", 0, 9, false, true, true},
		{"always", 0, 9, true, false, true},
		{"unless-stopped", 1, 0, false, true, true},
		{"unless-stopped", 1, 0, true, false, false},
		{"on-failure", 0, 0, false, false, false},
		{"on-failure", 1, 99, false, true, false},
		{"on-failure", 1, 0, true, false, false},
		{"on-failure:2", 1, 1, false, true, false},
		{"on-failure:2", 1, 2, false, false, false},
	} {
		p, err := ParseRestartPolicy(test.policy)
		if err != nil {
			t.Fatal(err)
		}
		c := &Container{Restart: p, RestartCount: test.count, Stopped: test.stopped}
		if c.RunsAgain(test.code) != test.again || c.RunsAtBoot() != test.atBoot {
			t.Errorf("%+v: again %t, at boot %t", test, c.RunsAgain(test.code), c.RunsAtBoot())
		}
	}
}

// TestStartAgainGivesTheAddressBack, unless another container has it or it was asked for.
func TestStartAgainGivesTheAddressBack(t *testing.T) {
	m := open(t, t.TempDir())
	end := func(name string) {
		t.Helper()
		_, err := m.EndContainer(name, func(c *Container) error { c.Status = Exited; return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string) {
		t.Helper()
		if _, _, err := m.CreateContainer(ContainerSpec{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	address := func(name string) netip.Addr {
		t.Helper()
		c, err := m.StartAgain(name)
		if err != nil || c.Status != Restarting {
			t.Fatalf("%+v, %v", c, err)
		}
		return c.Endpoints[0].IPv4.Addr()
	}
	second, third, fourth := netip.MustParseAddr("172.17.0.2"), netip.MustParseAddr("172.17.0.3"),
		netip.MustParseAddr("172.17.0.4")
	run("aa")
	run("bb")
	end("aa")
	end("bb")
	if got := address("bb"); got != third {
		t.Errorf("it had %s, has %s", third, got)
	}
	run("cc") // takes what aa had, the lowest
	if got := address("aa"); got != fourth {
		t.Errorf("where %s is another's it has %s", second, got)
	}
	if again := address("aa"); again != fourth {
		t.Errorf("asked twice, it has %s", again)
	}
	if _, err := m.StartAgain("cc"); err == nil {
		t.Error("what has not ended starts again")
	}
}

// TestStopSecondsDoNotOverflow: 18446744074 seconds in nanoseconds are 0.3 s in 64 bits.
func TestStopSecondsDoNotOverflow(t *testing.T) {
	for n, want := range map[int]time.Duration{
		-5: -time.Second, -1: -time.Second, 0: 0, 10: 10 * time.Second,
		9223372037: math.MaxInt32 * time.Second, 18446744074: math.MaxInt32 * time.Second, math.MinInt: -time.Second,
	} {
		if got := StopSeconds(n); got != want {
			t.Errorf("%d seconds: %v, want %v", n, got, want)
		}
	}
}
