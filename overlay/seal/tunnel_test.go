package seal

import (
	"bytes"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/conn/bindtest"

	"github.com/usernet/usernet/overlay"
)

// wire is one end of a network in memory. It looks for plain in what is sent.
type wire struct {
	conn.Bind
	far      string // the other end, as the Bind takes it
	plain    []byte
	readable atomic.Int64 // messages with plain in them
}

func (w *wire) ParseEndpoint(string) (conn.Endpoint, error) { return w.Bind.ParseEndpoint(w.far) }

func (w *wire) Send(bufs [][]byte, ep conn.Endpoint) error {
	for _, b := range bufs {
		if bytes.Contains(b, w.plain) {
			w.readable.Add(1)
		}
	}
	return w.Bind.Send(bufs, ep)
}

// opened is a datagram that a tunnel has handed over.
type opened struct {
	from netip.Addr
	data string
}

// TestAHostSpeaksOnlyAsItself sends as another host, then as itself: the first datagram is lost, the second arrives,
// and neither can be read on the way.
func TestAHostSpeaksOnlyAsItself(t *testing.T) {
	const forged, own = "a datagram: forged", "a datagram: its own"
	binds := bindtest.NewChannelBinds()
	keys := [2]PrivateKey{NewKey(), NewKey()}
	hosts := [2]overlay.HostID{"a", "b"}
	received := make(chan opened, 16)
	var wires [2]*wire
	var tunnels [2]*Tunnel
	for i, far := range []string{"127.0.0.1:1", "127.0.0.1:2"} { // bindtest's numbers of the ends
		wires[i] = &wire{Bind: binds[i], far: far, plain: []byte("a datagram")}
		var err error
		tunnels[i], err = New(Config{Key: keys[i], Bind: wires[i], Receive: func(from netip.Addr, datagrams [][]byte) {
			for _, d := range datagrams {
				received <- opened{from, string(d)}
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tunnels[i].Close)
		if err := tunnels[i].SetPeers(map[overlay.HostID]overlay.Key{hosts[1-i]: keys[1-i].Public()}); err != nil {
			t.Fatal(err)
		}
	}
	sender := tunnels[1]
	send := func(as netip.Addr, data string) {
		sender.own = as
		b := sender.Batch()
		sender.Add(b, Addr(keys[0].Public()), []byte(data[:5]), []byte(data[5:]))
		if err := sender.Send(b); err != nil {
			t.Fatal(err)
		}
	}
	self := sender.own
	send(Addr(NewKey().Public()), forged)
	send(self, own)
	select {
	case got := <-received:
		if want := (opened{self, own}); got != want {
			t.Errorf("%v arrived first, and %v should have", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatal("nothing arrived within a minute")
	}
	for _, w := range wires {
		if n := w.readable.Load(); n > 0 {
			t.Errorf("%d messages can be read on the way", n)
		}
	}
}
