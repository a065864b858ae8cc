package stack

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/packet"
)

// TestICMPErrorsAreBounded has one container bring about errors without end: what it is sent is bounded, its replies
// to pings are not.
func TestICMPErrorsAreBounded(t *testing.T) {
	for _, test := range []struct{ gateway, flood string }{
		{"10.9.0.1", "10.9.0.7"},
		{"fd09::1", "fd09::7"},
	} {
		g, _ := newNetwork(t) // in one, the two may have the same hash
		src, flood := netip.MustParseAddr(test.gateway), netip.MustParseAddr(test.flood)
		limited := func(to netip.Addr, message []byte) bool {
			return errors.Is(g.WriteICMP(src, to, message), errErrorRate)
		}
		problem := packet.ICMPError(packet.HostUnreachable, flood, make([]byte, 48))
		began, sent := time.Now(), 0
		for range 10 * errorsBurst {
			if !limited(flood, problem) {
				sent++
			}
		}
		most := errorsBurst + 1 + int(time.Since(began).Seconds()*errorsPerSecond)
		if sent < errorsBurst || sent > most {
			t.Errorf("%s was sent %d errors, want %d to %d", flood, sent, errorsBurst, most)
		}
		echo := []byte{0, 0, 0, 0, 0, 1, 0, 1} // a reply
		if src.Is6() {
			echo[0] = 129
		}
		for range 10 * errorsBurst {
			if limited(flood, echo) {
				t.Fatalf("%s: replies to pings are bounded", flood)
			}
		}
	}
}

// TestAddressesHaveAnErrorRateOfTheirOwn: a flood leaves most others theirs. Those with the same hash share one.
func TestAddressesHaveAnErrorRateOfTheirOwn(t *testing.T) {
	r, now := newErrorRate(), time.Now()
	for range errorsBurst {
		r.allow(netip.MustParseAddr("10.0.0.1"), now)
	}
	if r.allow(netip.MustParseAddr("10.0.0.1"), now) {
		t.Error("one more than the burst")
	}
	heard := 0
	for i := range 100 {
		if r.allow(netip.MustParseAddr(fmt.Sprintf("10.0.1.%d", i)), now) {
			heard++
		}
	}
	if heard < 80 {
		t.Errorf("%d of 100 others hear of an error", heard)
	}
	if !r.allow(netip.MustParseAddr("10.0.0.1"), now.Add(time.Second)) {
		t.Error("none a second later")
	}
}
