package sockio

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// udpSocket is a socket on the loopback, of either family.
func udpSocket(t *testing.T, at string, dual bool) (*Socket, int, netip.AddrPort) {
	t.Helper()
	fd, err := ListenUDP(netip.MustParseAddrPort(at), ListenOptions{Dual: dual})
	if err != nil {
		t.Fatal(err)
	}
	s := new(Socket)
	s.Open(fd)
	reactor := newReactor(t)
	t.Cleanup(func() { s.Close(reactor) })
	return s, fd, LocalAddr(fd)
}

func TestAddresses(t *testing.T) {
	for text, family := range map[string]int{"192.0.2.1:53": unix.AF_INET, "[2001:db8::1]:65535": unix.AF_INET6,
		"[::]:0": unix.AF_INET6} {
		a := netip.MustParseAddrPort(text)
		var raw RawAddr
		raw.Set(a)
		if raw.AddrPort() != a || AddrPort(Sockaddr(a)) != a || Family(a.Addr()) != family {
			t.Errorf("%s became %s and %s", a, raw.AddrPort(), AddrPort(Sockaddr(a)))
		}
	}
	var raw RawAddr
	if a := AddrPort(&unix.SockaddrUnix{Name: "x"}); a.IsValid() || raw.AddrPort().IsValid() {
		t.Errorf("a socket of another family is at %s", a)
	}
	raw.Set(netip.MustParseAddrPort("[::ffff:192.0.2.1]:53"))
	if got := raw.AddrPort().Addr(); !got.Is4() {
		t.Errorf("a mapped address is %s", got)
	}
	if a := LocalAddr(-1); a.IsValid() {
		t.Errorf("a closed descriptor is bound at %s", a)
	}
}

// TestSegments sends batches of each shape, and looks at what arrives with and without the kernel's help.
func TestSegments(t *testing.T) {
	for _, test := range []struct{ size, segment, datagrams int }{
		{0, 0, 1}, {1000, 0, 1}, {1000, 1000, 1}, {1000, 2000, 1}, {1000, 100, 10}, {1050, 100, 11}, {30, 1, 30},
	} {
		for _, merge := range []bool{false, true} {
			to, fd, at := udpSocket(t, "127.0.0.1:0", false)
			if merge {
				MergeDatagrams(fd)
			}
			from, fromFD, source := udpSocket(t, "127.0.0.1:0", false)
			payload := make([]byte, test.size)
			for i := range payload {
				payload[i] = byte(i)
			}
			var raw RawAddr
			raw.Set(at)
			if err := from.Use(func(int) error {
				return SendSegments(fromFD, payload, test.segment, &raw,
					nil)
			}); err != nil {
				t.Fatal(err)
			}
			var got []byte
			count := uint64(0)
			if err := to.ReceiveAll(func(d Datagram) {
				if d.From != source {
					t.Errorf("a datagram is from %s, want %s", d.From, source)
				}
				count += d.Count()
				got = append(got, bytes.Join(d.Payload, nil)...)
			}); err != nil {
				t.Fatal(err)
			}
			if int(count) != test.datagrams || !bytes.Equal(got, payload) {
				t.Errorf("%+v: %d datagrams of %d bytes arrived", test, count, len(got))
			}
		}
	}
}

// TestControlMessages: a dual socket says whom a datagram was for, and answers in that name, with a TTL.
func TestControlMessages(t *testing.T) {
	server, fd, at := udpSocket(t, "[::]:0", true)
	if !IsDual(fd) {
		t.Error("a dual socket takes IPv6 only")
	}
	if err := TellLocal(fd, true); err != nil {
		t.Fatal(err)
	}
	for _, local := range []string{"127.0.0.1", "::1"} {
		a := netip.MustParseAddr(local)
		client, clientFD, _ := udpSocket(t, netip.AddrPortFrom(a, 0).String(), false)
		var to RawAddr
		to.Set(netip.AddrPortFrom(a, at.Port()))
		if err := Send(clientFD, []byte("question"), &to, TTLControl(9, a.Is6())); err != nil {
			t.Fatal(err)
		}
		if err := server.ReceiveAll(func(d Datagram) {
			if d.Local.Unmap() != a {
				t.Errorf("a datagram for %s says it is for %s", a, d.Local)
			}
			var back RawAddr
			back.Set(netip.AddrPortFrom(netip.AddrFrom16(d.From.Addr().As16()), d.From.Port()))
			if err := Send(fd, []byte("answer"), &back, SourceControl(d.Local)); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		answers := 0
		if err := client.ReceiveAll(func(d Datagram) {
			answers++
			if d.From.Addr() != a || d.Local.IsValid() {
				t.Errorf("the answer is from %s for %s", d.From, d.Local)
			}
		}); err != nil || answers != 1 {
			t.Errorf("%d answers, %v", answers, err)
		}
	}
	if SourceControl(netip.Addr{}) != nil {
		t.Error("no address is a source")
	}
}

// TestQueuedErrors: nobody listens, and the kernel says so.
func TestQueuedErrors(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		s, fd, local := udpSocket(t, at, false)
		_, _, closed := udpSocket(t, at, false)
		v6 := local.Addr().Is6()
		QueueErrors(fd, v6)
		s.SetFragment(fd, true, v6)
		var to RawAddr
		to.Set(netip.AddrPortFrom(local.Addr(), 1)) // tcpmux: nobody has it
		if err := Send(fd, []byte("anybody?"), &to, nil); err != nil {
			t.Fatal(err)
		}
		seen := 0
		s.ReadErrors(func(e QueuedError, about netip.AddrPort, payload []byte) {
			seen++
			if e.V6 != v6 || e.Local || about.Port() != 1 || string(payload) != "anybody?" {
				t.Errorf("%+v about %q to %s", e, payload, about)
			}
		})
		if seen != 1 {
			t.Errorf("%d errors at %s", seen, at)
		}
		to.Set(closed)
		if err := Send(fd, make([]byte, MaxDatagram+1), &to, nil); err != unix.EMSGSIZE {
			t.Errorf("a datagram that is too long: %v", err)
		}
	}
}

func TestTXBatch(t *testing.T) {
	var b TXBatch
	add := func(size int, want bool) {
		t.Helper()
		if got := b.Add(make([]byte, size)); got != want {
			t.Errorf("a datagram of %d bytes in a batch of %d: %v", size, b.Size(), got)
		}
	}
	if !b.Empty() {
		t.Error("the zero value is not empty")
	}
	add(100, true)
	add(101, false)
	add(100, true)
	add(50, true)
	add(50, false) // behind a shorter one
	if b.Empty() || b.Size() != 100 {
		t.Errorf("a batch of %d bytes each", b.Size())
	}
	to, _, at := udpSocket(t, "127.0.0.1:0", false)
	_, fd, _ := udpSocket(t, "127.0.0.1:0", false)
	var raw RawAddr
	raw.Set(at)
	if err := b.Send(fd, &raw, nil); err != nil {
		t.Fatal(err)
	}
	b.Clear()
	count := uint64(0)
	if err := to.ReceiveAll(func(d Datagram) { count += d.Count() }); err != nil || count != 3 || !b.Empty() {
		t.Errorf("%d datagrams arrived of 3: %v", count, err)
	}
	for range MaxBatch {
		add(1400, true)
	}
	add(1400, false)
	b.Clear()
	add(BufferSize/2+1, true)
	add(BufferSize/2, false)
}

// TestBatchesAllocateNothing is the path of each datagram.
func TestBatchesAllocateNothing(t *testing.T) {
	to, _, at := udpSocket(t, "127.0.0.1:0", false)
	from, _, _ := udpSocket(t, "127.0.0.1:0", false)
	var raw RawAddr
	raw.Set(at)
	var b TXBatch
	payload := make([]byte, 100)
	send := func(fd int) error { return b.Send(fd, &raw, nil) }
	n := 0
	receive := func(Datagram) { n++ }
	run := func() {
		for range 8 {
			b.Add(payload)
		}
		_ = from.Use(send)
		b.Clear()
		_ = to.ReceiveAll(receive)
	}
	run()
	if allocs := testing.AllocsPerRun(200, run); allocs >= 1 && !raceEnabled {
		t.Errorf("%v allocations", allocs)
	}
	if n == 0 {
		t.Error("nothing arrived")
	}
}
