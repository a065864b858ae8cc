package sockio

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBusyPollLooksWhereItPays goes through waits by a clock of its own.
func TestBusyPollLooksWhereItPays(t *testing.T) {
	const d = 100 * time.Microsecond
	var b busyPoll
	now := time.Unix(1000, 0)
	looks := func(length, step time.Duration) (n int) {
		t.Helper()
		end := now.Add(length)
		for look := b.begin(now); look && now.Before(end); n++ {
			now = now.Add(step)
			look = b.again(now, d)
		}
		if now.Before(end) {
			now = end
		}
		b.end(now, d)
		return n
	}
	for _, w := range []struct {
		what            string
		length, step    time.Duration
		atLeast, atMost int
	}{
		{"the first wait", 50 * time.Microsecond, time.Microsecond, 0, 0},
		{"one after a short one", 50 * time.Microsecond, time.Microsecond, 50, 50},
		{"a long one", time.Second, time.Microsecond, 100, 101},
		{"one after a long one", 50 * time.Microsecond, time.Microsecond, 0, 0},
		{"one in which something else ran", 90 * time.Microsecond, time.Millisecond, 1, 1},
		{"one after that", 50 * time.Microsecond, time.Microsecond, 0, 0},
		{"a second later, after a long one", time.Second, time.Microsecond, 0, 0},
		{"a short one", 50 * time.Microsecond, time.Microsecond, 0, 0},
		{"one after a short one again", 50 * time.Microsecond, time.Microsecond, 50, 50},
	} {
		if n := looks(w.length, w.step); n < w.atLeast || n > w.atMost {
			t.Fatalf("%s: %d looks, want %d to %d", w.what, n, w.atLeast, w.atMost)
		}
	}
}

// TestReactorThatLooks handles what comes and ends like others.
func TestReactorThatLooks(t *testing.T) {
	BusyPoll(10 * time.Millisecond)
	defer BusyPoll(0)
	r, err := NewReactor()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	got := make(chan byte, 1)
	if err := r.Add(fds[0], receiver{fds[0], got}); err != nil {
		t.Fatal(err)
	}
	for i := range byte(200) {
		if _, err := unix.Write(fds[1], []byte{i}); err != nil {
			t.Fatal(err)
		}
		select {
		case b := <-got:
			if b != i {
				t.Fatalf("%d came, want %d", b, i)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%d did not come", i)
		}
	}
}

// receiver passes on the bytes that come to a socket.
type receiver struct {
	fd  int
	got chan byte
}

// HandleEvents implements Handler.
func (r receiver) HandleEvents(uint32) {
	var b [1]byte
	if n, err := unix.Read(r.fd, b[:]); n == 1 && err == nil {
		r.got <- b[0]
	}
}
