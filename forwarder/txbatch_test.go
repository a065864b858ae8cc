package forwarder

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/internal/sockio"
)

// hostSocket is a UDP socket on the host's loopback with room for all that a test sends.
func hostSocket(t testing.TB) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, netip.AddrPortFrom(gatewayAddr, uint16(c.LocalAddr().(*net.UDPAddr).Port))
}

func receive(t testing.TB, c net.PacketConn) ([]byte, net.Addr) {
	t.Helper()
	b := make([]byte, 1<<16)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, from, err := c.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n], from
}

// numbered is a datagram of a size, which begins with what tells it from others as far as there is room.
func numbered(number, size int) []byte {
	b := bytes.Repeat([]byte{byte(number)}, size)
	copy(b, fmt.Sprintf("%d ", number))
	return b
}

// TestGatheredDatagramsArriveInOrder sends datagrams of random sizes from one container port to two destinations, some
// of which may wait for others, and looks for each one where it was sent to.
func TestGatheredDatagramsArriveInOrder(t *testing.T) {
	w := newWorld(t, nil)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	var socks [2]*net.UDPConn
	var ends [2]netip.AddrPort
	for i := range socks {
		socks[i], ends[i] = hostSocket(t)
	}
	src := netip.AddrPortFrom(containerAddr, 4000)
	for round := range 100 {
		var want [2][][]byte
		to, size := 0, 100
		for number := range 40 {
			if random.IntN(6) == 0 {
				to = random.IntN(2)
			}
			if random.IntN(4) == 0 {
				size = random.IntN(1600)
			}
			payload := numbered(number, size)
			want[to] = append(want[to], payload)
			w.HandleUDP(packet.Datagram{
				Src: src, Dst: ends[to], TTL: 64, Payload: payload, MorePending: random.IntN(10) > 0,
				DontFragment: random.IntN(10) == 0,
				Original:     make([]byte, 28),
			})
		}
		w.Flush()
		for i, sock := range socks {
			for n, payload := range want[i] {
				if got, _ := receive(t, sock); !bytes.Equal(got, payload) {
					t.Fatalf("seed %d, round %d: datagram %d to %d has %d bytes, want %d", seed, round, n, i, len(got), len(payload))
				}
			}
		}
	}
}

// TestGatheredRepliesArriveInOrder is the same for a published port, and the host's datagrams arrive as super-frames.
func TestGatheredRepliesArriveInOrder(t *testing.T) {
	w := newWorld(t, nil)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	bound := w.publish(t, 53, "udp")
	inside := w.socket(t, 53)
	client, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(bound.Host))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for round := range 50 {
		var sent [][]byte
		size := 1 + random.IntN(1400)
		for number := range 10 {
			if random.IntN(4) == 0 {
				size = random.IntN(1400)
			}
			sent = append(sent, numbered(number, size))
			if _, err := client.Write(sent[number]); err != nil {
				t.Fatal(err)
			}
		}
		var from net.Addr
		for number, payload := range sent {
			var got []byte
			if got, from = receive(t, inside); !bytes.Equal(got, payload) {
				t.Fatalf("seed %d, round %d: datagram %d has %d bytes, want %d", seed, round, number, len(got),
					len(payload))
			}
		}
		var want [][]byte
		for number := range 40 {
			if random.IntN(4) == 0 {
				size = random.IntN(1500)
			}
			want = append(want, numbered(number, size))
			w.HandleUDP(packet.Datagram{
				Src: netip.AddrPortFrom(containerAddr, 53), Dst: from.(*net.UDPAddr).AddrPort(), TTL: 64,
				Payload: want[number], MorePending: random.IntN(10) > 0,
			})
		}
		w.Flush()
		for number, payload := range want {
			if got, _ := receive(t, client); !bytes.Equal(got, payload) {
				t.Fatalf("seed %d, round %d: reply %d has %d bytes, want %d", seed, round, number, len(got),
					len(payload))
			}
		}
	}
}

// TestNothingGatheredIsLeftBehind ends an association and a whole forwarder while datagrams wait.
func TestNothingGatheredIsLeftBehind(t *testing.T) {
	w := newWorld(t, nil)
	sock, end := hostSocket(t)
	p := packet.Datagram{Src: netip.AddrPortFrom(containerAddr, 4000), Dst: end, TTL: 64, Payload: []byte("waits"),
		MorePending: true}
	w.HandleUDP(p)
	w.AbortContainer(containerAddr)
	w.Flush()
	p.MorePending, p.Payload = false, []byte("goes")
	w.HandleUDP(p)
	if got, _ := receive(t, sock); string(got) != "goes" {
		t.Errorf("%q arrived", got)
	}
	p.MorePending = true
	w.HandleUDP(p) // and the forwarder is closed with it
}

// TestGatheredDatagramsLeaveTogether has a receiver that takes several datagrams at once see that they came so.
func TestGatheredDatagramsLeaveTogether(t *testing.T) {
	w := newWorld(t, nil)
	sock, end := hostSocket(t)
	raw, err := sock.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { sockio.MergeDatagrams(int(fd)) }); err != nil {
		t.Fatal(err)
	}
	p := packet.Datagram{Src: netip.AddrPortFrom(containerAddr, 4000), Dst: end, TTL: 64, Payload: make([]byte, 100),
		MorePending: true}
	for range sockio.MaxBatch + 2 {
		w.HandleUDP(p)
	}
	w.Flush()
	for _, want := range []int{sockio.MaxBatch * 100, 200} {
		if got, _ := receive(t, sock); len(got) != want {
			t.Errorf("%d bytes came at once, want %d", len(got), want)
		}
	}
}
