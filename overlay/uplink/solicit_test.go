package uplink

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/ndp"

	"github.com/usernet/usernet/overlay/uplink/routers"
	vswitch "github.com/usernet/usernet/switch"
)

// advertOf is what a router announces: itself, for a lifetime.
func advertOf(t *testing.T, from netip.Addr, lifetime time.Duration) *routers.Advert {
	t.Helper()
	all := netip.MustParseAddr("ff02::1")
	body, err := ndp.MarshalMessageChecksum(&ndp.RouterAdvertisement{RouterLifetime: lifetime}, from, all)
	if err != nil {
		t.Fatal(err)
	}
	var f vswitch.Frame
	binary.BigEndian.PutUint16(f.Ethernet()[macsLen:], vswitch.EtherTypeIPv6)
	f.Payload = [][]byte{routers.Packet(from, all, body)}
	a := routers.Parse(&f)
	if a == nil {
		t.Fatal("the advertisement is not read")
	}
	return a
}

// TestWhatRoutersAnnounceIsToldNowAndThen has a station announce something else all the time.
func TestWhatRoutersAnnounceIsToldNowAndThen(t *testing.T) {
	const every, patience = 200 * time.Millisecond, 30 * time.Second
	from := netip.MustParseAddr("fe80::1")
	there, gone := advertOf(t, from, time.Hour), advertOf(t, from, 0)
	table, stop, ended := new(routers.Table), make(chan struct{}), make(chan struct{})
	told := make(chan routers.View, 1<<16)
	began := time.Now()
	go func() {
		defer close(ended)
		followTable(table, stop, every, func(v routers.View) { told <- v })
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for time.Since(began) < 5*every {
		table.Take(there)
		<-tick.C
		table.Take(gone)
		<-tick.C
	}
	table.Take(there)
	var last routers.View
	n := 0
	for deadline := time.After(patience); last.Router != from || len(told) > 0; {
		select {
		case last = <-told:
			n++
		case <-deadline:
			t.Fatal("what was last is not told")
		}
	}
	if most := tellAtOnce + 1 + int(time.Since(began)/every); n > most {
		t.Errorf("told %d times, at most %d are possible", n, most)
	}
	close(stop)
	<-ended
}
