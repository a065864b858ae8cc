package vmlink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/leak"
	vswitch "github.com/usernet/usernet/switch"
	"github.com/usernet/usernet/switch/vmlink/vmlinktest"
)

// patience is how long a test waits for what happens at once on a machine with nothing else to do.
const patience = 30 * time.Second

var (
	guestMAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	otherMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

// recorder is a device that notes its frames.
type recorder struct {
	mu     sync.Mutex
	frames [][]byte
}

func (r *recorder) WriteFrame(f *vswitch.Frame) error {
	return f.Segments(func(frame []byte) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.frames = append(r.frames, bytes.Clone(frame))
		return nil
	})
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.frames)
}

// world is a switch with a link's port and another one.
type world struct {
	t     *testing.T
	link  *Link
	port  *vswitch.Port
	peer  *recorder
	other *vswitch.Port
	done  chan error // what Serve returned

	earlier map[string]bool // frames that toGuest has sent
}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	sw := vswitch.New(vswitch.Config{})
	w := &world{t: t, peer: &recorder{}, done: make(chan error, 1), earlier: map[string]bool{}}
	var err error
	if w.link, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if w.port, err = sw.Connect(vswitch.PortConfig{Name: "guest", MAC: guestMAC}, w.link); err != nil {
		t.Fatal(err)
	}
	if w.other, err = sw.Connect(vswitch.PortConfig{Name: "other", MAC: otherMAC}, w.peer); err != nil {
		t.Fatal(err)
	}
	go func() { w.done <- w.link.Serve(w.port) }()
	t.Cleanup(w.close)
	return w
}

func (w *world) close() {
	w.t.Helper()
	if err := errors.Join(w.port.Close(), w.link.Close(), w.link.Close()); err != nil {
		w.t.Error(err)
	}
	select {
	case err := <-w.done:
		if !errors.Is(err, net.ErrClosed) {
			w.t.Errorf("Serve returned %v", err)
		}
		w.done <- err
	case <-time.After(patience):
		w.t.Fatal("Serve goes on after Close")
	}
}

// until polls a condition.
func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("never: %s; drops %v", what, w.port.Stats().Drops)
		}
	}
}

// ethernet is a frame of an EtherType that nobody looks into.
func ethernet(dst, src net.HardwareAddr, payload string) []byte {
	return append(append(append(bytes.Clone(dst), src...), 0x88, 0xb5), payload...)
}

// toGuest sends the guest frames until one arrives: what comes before the link knows its guest is lost. Of those that
// an earlier call sent, some may still be on their way.
func (w *world) toGuest(g guest, payload string) {
	w.t.Helper()
	frame := ethernet(guestMAC, otherMAC, payload)
	got := make(chan []byte, 1)
	go func() {
		have := g.receive()
		for len(have) > 0 && !bytes.Equal(have, frame) && w.earlier[string(have)] {
			have = g.receive()
		}
		got <- have
	}()
	defer func() { w.earlier[string(frame)] = true }()
	var f vswitch.Frame
	for end := time.Now().Add(patience); ; {
		copy(f.Ethernet(), frame)
		f.Payload = [][]byte{frame[vswitch.EthernetHeaderLen:]}
		w.other.Receive(&f)
		select {
		case have := <-got:
			if !bytes.Equal(have, frame) {
				w.t.Fatalf("the guest got %q, want %q", have, frame)
			}
			return
		case <-time.After(time.Millisecond):
			if time.Now().After(end) {
				w.t.Fatal("the guest gets no frame")
			}
		}
	}
}

// guest is the other end of a link.
type guest struct {
	t    *testing.T
	conn *net.UnixConn
	kind Kind
	to   *net.UnixAddr // of datagrams
}

func dial(t *testing.T, kind Kind, path string) guest {
	t.Helper()
	g := guest{t: t, kind: kind}
	at := &net.UnixAddr{Name: path, Net: network(kind)}
	var err error
	if kind == Datagram {
		own := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "g"), Net: at.Net}
		g.conn, err = net.ListenUnixgram(at.Net, own)
		g.to = at
	} else {
		g.conn, err = net.DialUnix(at.Net, nil, at)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.conn.Close() })
	_ = g.conn.SetDeadline(time.Now().Add(patience))
	return g
}

func (g guest) send(frame []byte) {
	g.t.Helper()
	var err error
	switch g.kind {
	case Stream:
		err = vmlinktest.WriteFrame(g.conn, frame)
	case Datagram:
		_, err = g.conn.WriteToUnix(frame, g.to)
	default:
		_, err = g.conn.Write(frame)
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

// receive returns the next frame; nil where there is none.
func (g guest) receive() []byte {
	buf := make([]byte, maxFrame)
	if g.kind == Stream {
		frame, _ := vmlinktest.ReadFrame(g.conn, buf)
		return frame
	}
	n, _ := g.conn.Read(buf)
	return buf[:n]
}

var kinds = []Kind{Stream, Datagram, Seqpacket}

func TestFramesPassBothWays(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			running := leak.Goroutines()
			t.Cleanup(func() { running.NoneLeft(t) }) // after the link's
			w := newWorld(t, Config{Kind: kind, Path: filepath.Join(t.TempDir(), "s")})
			g := dial(t, kind, w.link.cfg.Path)
			for _, payload := range []string{"a", string(bytes.Repeat([]byte{7}, 1500)), string(make([]byte, 60000))} {
				before := w.peer.count()
				frame := ethernet(otherMAC, guestMAC, payload)
				g.send(frame)
				w.until("the frame arrives", func() bool { return w.peer.count() > before })
				if got := w.peer.frames[before]; !bytes.Equal(got, frame) {
					t.Fatalf("%d bytes arrived, want %d", len(got), len(frame))
				}
			}
			w.toGuest(g, "hello")
		})
	}
}

func TestAGuestThatComesBackHasItsPlace(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t, Config{Kind: kind, Path: filepath.Join(t.TempDir(), "s")})
			for range 5 {
				g := dial(t, kind, w.link.cfg.Path)
				before := w.peer.count()
				g.send(ethernet(otherMAC, guestMAC, "again"))
				w.until("the frame arrives", func() bool { return w.peer.count() > before })
				w.toGuest(g, "welcome")
				_ = g.conn.Close() // the next one dials at once
			}
		})
	}
}

func TestASecondGuestIsTurnedAway(t *testing.T) {
	for _, kind := range []Kind{Stream, Seqpacket} {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t, Config{Kind: kind, Path: filepath.Join(t.TempDir(), "s")})
			g := dial(t, kind, w.link.cfg.Path)
			w.toGuest(g, "first")
			second := dial(t, kind, w.link.cfg.Path)
			if n, err := second.conn.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("the second guest reads %d bytes, %v", n, err)
			}
			w.toGuest(g, "still")
		})
	}
}

func TestALinkConnectsToAGuestThatListens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	w := newWorld(t, Config{Path: path, Connect: true})
	for range 2 { // the guest's program is started again
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		_ = l.SetDeadline(time.Now().Add(patience))
		conn, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		w.toGuest(guest{t: t, conn: conn, kind: Stream}, "hello")
		_, _ = conn.Close(), l.Close()
	}
}

func TestALengthThatNoFrameHasEndsTheConnection(t *testing.T) {
	for name, bytes := range map[string][]byte{
		"one more than the longest": binary.BigEndian.AppendUint32(nil, maxFrame+1),
		"all ones":                  {0xff, 0xff, 0xff, 0xff},
		"another protocol":          []byte("GET / HTTP/1.1\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{Path: filepath.Join(t.TempDir(), "s")})
			g := dial(t, Stream, w.link.cfg.Path)
			if _, err := g.conn.Write(bytes); err != nil {
				t.Fatal(err)
			}
			if _, err := g.conn.Read(make([]byte, 1)); err == nil || errors.Is(err, net.ErrClosed) {
				t.Errorf("the connection goes on: %v", err)
			}
			w.toGuest(dial(t, Stream, w.link.cfg.Path), "the next guest")
		})
	}
}

func TestWhatIsNoFrameIsCounted(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t, Config{Kind: kind, Path: filepath.Join(t.TempDir(), "s")})
			g := dial(t, kind, w.link.cfg.Path)
			g.send([]byte("VFKT")) // the greeting of old versions of vfkit
			g.send(make([]byte, vswitch.EthernetHeaderLen))
			w.until("both are counted", func() bool { return w.port.Stats().Drops[vswitch.DropShort] == 2 })
			g.send(ethernet(otherMAC, net.HardwareAddr{2, 0, 0, 0, 0, 9}, "forged"))
			w.until("the guard drops it", func() bool { return w.port.Stats().Drops[vswitch.DropMAC] == 1 })
			g.send(ethernet(otherMAC, guestMAC, "good"))
			w.until("the frame arrives", func() bool { return w.peer.count() == 1 })
		})
	}
}

// TestAGuestThatDoesNotRead: the switch never waits for it, and the memory is bounded.
func TestAGuestThatDoesNotRead(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			running := leak.Goroutines()
			t.Cleanup(func() { running.NoneLeft(t) }) // after the link's
			w := newWorld(t, Config{Kind: kind, Path: filepath.Join(t.TempDir(), "s")})
			g := dial(t, kind, w.link.cfg.Path)
			g.send(ethernet(otherMAC, guestMAC, "here I am"))
			w.until("the frame arrives", func() bool { return w.peer.count() == 1 })
			var f vswitch.Frame
			frame := ethernet(guestMAC, otherMAC, string(make([]byte, 1400)))
			copy(f.Ethernet(), frame)
			f.Payload = [][]byte{frame[vswitch.EthernetHeaderLen:]}
			w.until("frames are dropped", func() bool {
				for range 100 {
					w.other.Receive(&f)
				}
				return w.port.Stats().Drops[vswitch.DropDevice] > 100
			})
			s := w.link.current.Load()
			s.out.mu.Lock()
			defer s.out.mu.Unlock()
			if len(s.out.filling) > outboxSize || cap(s.out.filling) > 2*outboxSize {
				t.Errorf("%d bytes wait, in %d", len(s.out.filling), cap(s.out.filling))
			}
		})
	}
}

// TestStopLetsFramesBeWritten: a daemon that ends reads no more, and still delivers what it has read from others.
func TestStopLetsFramesBeWritten(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t, Config{Kind: kind, Path: filepath.Join(t.TempDir(), "s")})
			g := dial(t, kind, w.link.cfg.Path)
			g.send(ethernet(otherMAC, guestMAC, "here I am"))
			w.until("the frame arrives", func() bool { return w.peer.count() == 1 })
			w.link.Stop()
			w.link.Stop()
			w.toGuest(g, "the last one")
		})
	}
}

func TestANewPeerIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var mu sync.Mutex
	var told []string
	w := newWorld(t, Config{Kind: Datagram, Path: path, NewPeer: func(p string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, p)
	}})
	g := dial(t, Datagram, path)
	for range 3 {
		g.send(ethernet(otherMAC, guestMAC, "hello"))
	}
	w.until("all arrive", func() bool { return w.peer.count() == 3 })
	mu.Lock()
	at := g.conn.LocalAddr().String()
	if len(told) != 1 || told[0] != at {
		t.Fatalf("told %q, want %q once", told, at)
	}
	mu.Unlock()
	w.close()
	// A daemon that is started again reaches the guest before it sends.
	again := newWorld(t, Config{Kind: Datagram, Path: path, Peer: at})
	again.toGuest(g, "hello again")
}

func TestWhatIsNoSocketIsNotReplaced(t *testing.T) {
	if _, err := New(Config{Path: t.TempDir()}); err == nil {
		t.Error("a directory was replaced")
	}
	if _, err := New(Config{Kind: Datagram, Path: "x", Connect: true}); err == nil {
		t.Error("a datagram socket was connected to")
	}
	if _, err := New(Config{Kind: "tcp", Path: "x"}); err == nil {
		t.Error("a kind was made up")
	}
}

func TestDecodedFramesAreThoseThatWereEncoded(t *testing.T) {
	o := newOutbox()
	for _, size := range []int{1, 14, 60, 1514, maxFrame} {
		if err := o.put(bytes.Repeat([]byte{byte(size)}, size)); err != nil {
			t.Fatal(err)
		}
	}
	all := o.take(nil)
	for cut := range min(len(all), 4000) {
		var got []int
		used, err := decode(all[:cut], func(f []byte) { got = append(got, len(f)) })
		if err != nil || used > cut {
			t.Fatalf("of %d bytes %d were used: %v", cut, used, err)
		}
		rest := 0
		if _, err := decode(all[used:], func([]byte) { rest++ }); err != nil || len(got)+rest != 5 {
			t.Fatalf("cut at %d: %d and %d frames, %v", cut, len(got), rest, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 7})
	f.Add([]byte{0, 0, 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		used, _ := decode(b, func(frame []byte) { total += lengthLen + len(frame) })
		if used != total || used > len(b) {
			t.Fatalf("%d bytes used, frames of %d, of %d", used, total, len(b))
		}
	})
}

func TestFramesAllocateNothing(t *testing.T) {
	w := newWorld(t, Config{Path: filepath.Join(t.TempDir(), "s")})
	g := dial(t, Stream, w.link.cfg.Path)
	w.toGuest(g, "hello")
	go func() { _, _ = io.Copy(io.Discard, g.conn) }()
	r := newReader(w.link, w.link.current.Load(), w.port)
	defer r.release()
	in := ethernet(net.HardwareAddr{2, 0, 0, 0, 0, 9}, guestMAC, string(make([]byte, 1400))) // to nobody
	b := vmlinktest.Append(nil, in)
	if n := testing.AllocsPerRun(100, func() { _, _ = decode(b, r.emit) }); n > 0 {
		t.Errorf("%v allocations for a frame of the guest", n)
	}
	var f vswitch.Frame
	copy(f.Ethernet(), ethernet(guestMAC, otherMAC, ""))
	f.Payload = [][]byte{make([]byte, 1400)}
	// A buffer is made once in a while, where the guest is slow.
	if n := testing.AllocsPerRun(1000, func() { _ = w.link.WriteFrame(&f) }); n > 0.5 {
		t.Errorf("%v allocations for a frame to the guest", n)
	}
}
