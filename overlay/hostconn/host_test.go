package hostconn

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/seal"
)

const (
	hostA = overlay.HostID("0a000000000000000000000000000001")
	hostB = overlay.HostID("0b000000000000000000000000000002")
	hostC = overlay.HostID("0c000000000000000000000000000003")
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair is a TCP connection, with a deadline.
func pair(t testing.TB) (dialed, accepted *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	s, err := l.Accept()
	must(t, err)
	t.Cleanup(func() { _, _ = c.Close(), s.Close() })
	must(t, errors.Join(c.SetDeadline(time.Now().Add(time.Minute)), s.SetDeadline(time.Now().Add(time.Minute))))
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// keys are what a host knows of others.
type keys map[overlay.HostID]overlay.Key

func (k keys) of(h overlay.HostID) (overlay.Key, bool) { key, ok := k[h]; return key, ok }

func newHost(t testing.TB, id overlay.HostID, key seal.PrivateKey, known keys) *Host {
	t.Helper()
	h, err := New(Config{Host: id, Key: key, KeyOf: known.of})
	must(t, err)
	return h
}

// answer is what the accepting end does with a connection.
func answer(h *Host, conn *net.TCPConn, accept bool) (*Conn, Request, error) {
	var preamble [PreambleLen]byte
	if _, err := io.ReadFull(conn, preamble[:]); err != nil {
		return nil, Request{}, err
	}
	if !IsPreamble(preamble) {
		return nil, Request{}, errors.New("the preamble is none")
	}
	a, err := h.Answer(conn, preamble)
	if err != nil {
		_ = conn.Close()
		return nil, Request{}, err
	}
	if !accept {
		return nil, a.Request, a.Refuse()
	}
	c, err := a.Accept()
	return c, a.Request, err
}

var asked = Request{
	VNI: 4711,
	Src: netip.MustParseAddrPort("10.0.1.2:40000"),
	Dst: netip.MustParseAddrPort("10.0.1.3:80"),
}

func TestHandshake(t *testing.T) {
	a, b, c := seal.NewKey(), seal.NewKey(), seal.NewKey()
	both := func(x, y overlay.Key) keys { return keys{hostA: x, hostB: y} }
	right := both(a.Public(), b.Public())
	for name, test := range map[string]struct {
		id               overlay.HostID // of who dials
		key              seal.PrivateKey
		knows, isKnown   keys // by who dials, and by who is dialed
		refuse           bool
		dialing, dialled error // nil: none
	}{
		"two hosts that know each other": {id: hostA, key: a, knows: right, isKnown: right},
		"a connection that is not made": {id: hostA, key: a, knows: right, isKnown: right, refuse: true,
			dialing: ErrRefused},
		"a host in the name of another": {id: hostA, key: c, knows: right, isKnown: right,
			dialing: io.EOF, dialled: ErrForged},
		"a host that is not known": {id: hostC, key: c, knows: right, isKnown: right,
			dialing: io.EOF, dialled: ErrUnknown},
		"a host whose key does not count": {id: hostA, key: a, knows: right, isKnown: keys{},
			dialing: io.EOF, dialled: ErrUnknown},
		"the other end has another key": {id: hostA, key: a, knows: both(a.Public(), c.Public()), isKnown: right,
			dialing: io.EOF, dialled: ErrForged},
		"who dials does not know the other host": {id: hostA, key: a, knows: keys{}, isKnown: right,
			dialing: ErrUnknown, dialled: io.EOF},
	} {
		for _, sealed := range []bool{true, false} {
			t.Run(name+map[bool]string{true: ", sealed", false: ", plain"}[sealed], func(t *testing.T) {
				running := leak.Goroutines()
				dialed, accepted := pair(t)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				client, server := newHost(t, test.id, test.key, test.knows), newHost(t, hostB, b, test.isKnown)
				var there *Conn
				var request Request
				var serr error
				done := make(chan struct{})
				go func() {
					defer close(done)
					there, request, serr = answer(server, accepted, !test.refuse)
				}()
				here, err := client.Dial(ctx, dialed, sealed, hostB, asked)
				if err != nil {
					_ = dialed.Close()
				}
				<-done
				if !errors.Is(err, test.dialing) && !(test.dialing == io.EOF && errors.Is(err, unix.ECONNRESET)) {
					t.Errorf("who dials: %v, want %v", err, test.dialing)
				}
				if !errors.Is(serr, test.dialled) {
					t.Errorf("who is dialed: %v, want %v", serr, test.dialled)
				}
				if here != nil && there != nil {
					if want := (Request{hostA, asked.VNI, asked.Src, asked.Dst}); request != want {
						t.Errorf("asked for %+v, want %+v", request, want)
					}
					speak(t, here, there)
				}
				running.NoneLeft(t)
			})
		}
	}
}

// speak sends both ways, and ends both halves.
func speak(t *testing.T, a, b *Conn) {
	t.Helper()
	data := bytes.Repeat([]byte("usernet "), 100000)
	for _, way := range [][2]*Conn{{a, b}, {b, a}} {
		sent := make(chan error, 1)
		go func() {
			_, err := way[0].Write(data)
			sent <- errors.Join(err, way[0].CloseWrite())
		}()
		got, err := io.ReadAll(way[1])
		must(t, errors.Join(err, <-sent))
		if !bytes.Equal(got, data) {
			t.Errorf("%d bytes came, not the %d that were sent", len(got), len(data))
		}
	}
	a.Finish()
	b.Finish()
}

// TestWhoStandsBetween has a third host that both ends know and that makes a TLS session with each, and passes on what
// they say in them: neither takes the other's authentication for that of its own session.
func TestWhoStandsBetween(t *testing.T) {
	a, b := seal.NewKey(), seal.NewKey()
	known := keys{hostA: a.Public(), hostB: b.Public()}
	client, server := newHost(t, hostA, a, known), newHost(t, hostB, b, known)
	between := newHost(t, hostC, seal.NewKey(), known)
	dialed, first := pair(t)
	second, accepted := pair(t)
	failed := make(chan error, 1)
	go func() {
		_, _, err := answer(server, accepted, true)
		failed <- err
	}()
	go func() {
		var preamble [PreambleLen]byte
		_, _ = io.ReadFull(first, preamble[:])
		_, _ = second.Write(preamble[:])
		in, out := tlsServer(between, first), tlsClient(between, second)
		go func() { _, _ = io.Copy(out, in); _ = second.Close() }()
		_, _ = io.Copy(in, out)
		_ = first.Close()
	}()
	_, err := client.Dial(t.Context(), dialed, true, hostB, asked)
	if err == nil {
		t.Error("who dials takes the session for one with the other host")
	}
	if err := <-failed; !errors.Is(err, ErrForged) {
		t.Errorf("who is dialed: %v, want %v", err, ErrForged)
	}
}

// TestWhatIsNoRequest sends what no host would: it ends with an error, and within the deadline where it does not end.
func TestWhatIsNoRequest(t *testing.T) {
	a, b := seal.NewKey(), seal.NewKey()
	known := keys{hostA: a.Public(), hostB: b.Public()}
	h := newHost(t, hostB, b, known)
	zeros := make([]byte, requestLen)
	for name, said := range map[string]struct {
		preamble string
		bytes    []byte
		closes   bool
	}{
		"nothing, slowly":                {preamblePlain, nil, false},
		"nothing, slowly, in TLS":        {preambleSealed, nil, false},
		"half a request, slowly":         {preamblePlain, zeros[:40], false},
		"half a request":                 {preamblePlain, zeros[:40], true},
		"zeros":                          {preamblePlain, zeros, true},
		"what is no TLS":                 {preambleSealed, bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 10), true},
		"a request that never ends":      {preamblePlain, make([]byte, 1<<20), true},
		"a record of TLS without an end": {preambleSealed, append([]byte{22, 3, 1, 255, 255}, zeros...), true},
	} {
		t.Run(name, func(t *testing.T) {
			running := leak.Goroutines()
			dialed, accepted := pair(t)
			if !said.closes {
				must(t, accepted.SetDeadline(time.Now().Add(100*time.Millisecond)))
			}
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				_, _ = dialed.Write(said.bytes) // it fails where the other end has closed
				if said.closes {
					_ = dialed.CloseWrite()
				}
			}()
			if _, err := h.Answer(accepted, [PreambleLen]byte([]byte(said.preamble))); err == nil {
				t.Error("it is taken for a request")
			}
			_ = accepted.Close()
			<-sent
			running.NoneLeft(t)
		})
	}
}

// TestDialEndsWithItsContext has another end that says nothing.
func TestDialEndsWithItsContext(t *testing.T) {
	a, b := seal.NewKey(), seal.NewKey()
	h := newHost(t, hostA, a, keys{hostB: b.Public()})
	for _, sealed := range []bool{true, false} {
		dialed, _ := pair(t)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := h.Dial(ctx, dialed, sealed, hostB, asked); err == nil {
			t.Error("there is a connection with nobody")
		}
	}
}

func FuzzRequest(f *testing.F) {
	s := &secret{key: []byte("key")}
	r := s.request(Request{hostA, 1, asked.Src, asked.Dst})
	f.Add(r[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < requestLen {
			return
		}
		r, err := parseRequest([requestLen]byte(b))
		if err != nil {
			return
		}
		back, err := parseRequest(s.request(r))
		if err != nil || back != r {
			t.Errorf("%+v became %+v (%v)", r, back, err)
		}
	})
}

func tlsServer(h *Host, c net.Conn) net.Conn { return tls.Server(c, h.tlsConfig()) }
func tlsClient(h *Host, c net.Conn) net.Conn { return tls.Client(c, h.tlsConfig()) }
