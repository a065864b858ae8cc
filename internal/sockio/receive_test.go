package sockio

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRunsAreOfOneSenderAndSize is what may reach a container as one super-frame.
func TestRunsAreOfOneSenderAndSize(t *testing.T) {
	fd, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"), ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var clients [2]net.Conn
	for i := range clients {
		if clients[i], err = net.Dial("udp4", LocalAddr(fd).String()); err != nil {
			t.Fatal(err)
		}
		defer clients[i].Close()
	}
	type sent struct{ client, size int }
	for _, s := range []sent{{0, 100}, {0, 100}, {0, 40}, {0, 100}, {1, 100}, {1, 100}, {0, 100}, {0, 200}, {0, 0},
		{0, 0}} {
		if _, err := clients[s.client].Write(make([]byte, s.size)); err != nil {
			t.Fatal(err)
		}
	}
	b := rxBatches.Get().(*rxBatch)
	defer rxBatches.Put(b)
	n, err := b.receive(fd)
	if err != nil {
		t.Fatal(err)
	}
	type run struct{ count, size, segment int }
	var got []run
	for i := 0; i < n; {
		d, count := b.run(i, n)
		got = append(got, run{count, d.Size, d.GSOSize})
		i += count
	}
	want := []run{{3, 240, 100}, {1, 100, 0}, {2, 200, 100}, {1, 100, 0}, {1, 200, 0}, {1, 0, 0}, {1, 0, 0}}
	if !slices.Equal(got, want) {
		t.Errorf("runs %v, want %v", got, want)
	}
}

// TestLostDatagramsAreCounted fills a socket's queue, and empties it, twice.
func TestLostDatagramsAreCounted(t *testing.T) {
	fd, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"), ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReactor()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var s Socket
	s.Open(fd)
	defer s.Close(r)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<10); err != nil {
		t.Fatal(err)
	}
	s.CountLost(fd)
	client, err := net.Dial("udp4", LocalAddr(fd).String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	sent, read, lost := 0, 0, 0
	send := func() {
		if _, err := client.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	readAll := func() {
		for before := -1; before < read; {
			before = read
			err := s.ReceiveAll(func(d Datagram) {
				read += int(d.Count())
				lost += int(d.Lost)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		before := lost
		for range 2000 {
			send()
		}
		readAll()
		send() // a datagram says what was lost before it came
		readAll()
		if lost == before {
			t.Error("the queue held all")
		}
		if read+lost != sent {
			t.Errorf("%d were sent, %d read, %d lost", sent, read, lost)
		}
	}
	var next Socket // of the same descriptor, as after a takeover
	next.Open(fd)
	next.CountLost(fd)
	lost = 0
	send()
	if err := next.ReceiveAll(func(d Datagram) { lost += int(d.Lost) }); err != nil || lost != 0 {
		t.Errorf("of what was lost before, %d are lost again: %v", lost, err)
	}
}
