package sockio

import (
	"testing"
	"time"
)

func TestKeepAlive(t *testing.T) {
	for _, test := range []struct{ timeout, idle, interval time.Duration }{
		{30 * time.Second, 15 * time.Second, 5 * time.Second},
		{time.Hour, 30 * time.Minute, 10 * time.Minute},
		{time.Second, time.Second, time.Second},
		{24 * time.Hour, 32767 * time.Second, 10922 * time.Second},
	} {
		k := KeepAlive(test.timeout)
		if !k.Enable || k.Idle != test.idle || k.Interval != test.interval || k.Count != keepAliveProbes {
			t.Errorf("for %v: %+v", test.timeout, k)
		}
	}
	if KeepAlive(0).Enable {
		t.Error("0 does not leave it to the kernel")
	}
}
