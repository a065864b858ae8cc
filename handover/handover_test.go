package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/leak"
)

// levelWhenDone fails the test when it leaves descriptors behind. What was registered for cleanup later is done before.
func levelWhenDone(t *testing.T) {
	before := leak.Descriptors(t)
	t.Cleanup(func() { before.NoneLeft(t) })
}

// file makes a descriptor that is told by its contents.
func file(t *testing.T, contents string) int {
	t.Helper()
	fd, err := unix.MemfdCreate("handover", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, []byte(contents)); err != nil {
		t.Fatal(err)
	}
	return fd
}

func contents(t *testing.T, fd int) string {
	t.Helper()
	buf := make([]byte, 300)
	n, err := unix.Pread(fd, buf, 0)
	if err != nil {
		t.Fatalf("descriptor %d: %v", fd, err)
	}
	return string(buf[:n])
}

// pair returns the two ends of a conversation.
func pair(t *testing.T) (from, to *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if from, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if to, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*net.UnixConn{from, to} {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		t.Cleanup(func() { _ = c.Close() })
	}
	return from, to
}

// full is a table of which each descriptor says what it is.
func full(t *testing.T, sandboxes int) *Set {
	s := &Set{}
	ids := []ID{{Kind: API}, {Kind: Published, Name: "tcp-0.0.0.0-80-dual"},
		{Kind: Published, Name: "udp-127.0.0.1-53"}, {Kind: Inherited, Name: "tcp-..-443"}}
	for i := range sandboxes {
		c := fmt.Sprintf("%064x", i)
		ids = append(ids, ID{Kind: TAP, Container: c, Endpoint: c, Name: "eth0"}, ID{Kind: DNSPacket, Container: c},
			ID{Kind: "new", Container: c})
	}
	for _, id := range ids {
		s.Put(id, file(t, id.String()))
	}
	t.Cleanup(s.Close)
	return s
}

func (s *Set) check(t *testing.T, want *Set) {
	t.Helper()
	n := 0
	for id := range want.All() {
		n++
		fd, ok := s.fds[id]
		if !ok {
			t.Errorf("%s is missing", id)
		} else if got := contents(t, fd); got != id.String() {
			t.Errorf("%s came as %s", got, id)
		}
	}
	if len(s.fds) != n {
		t.Errorf("%d descriptors, want %d", len(s.fds), n)
	}
}

// serve answers handovers at a socket with f.
func serve(t *testing.T, f func(p *Peer)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := Serve(w, r)
		if err != nil {
			http.Error(w, `{"message":"`+strings.ReplaceAll(err.Error(), `"`, `'`)+`"}`, http.StatusNotImplemented)
			return
		}
		f(p)
	})}
	served := make(chan struct{})
	go func() { _ = s.Serve(l); close(served) }()
	t.Cleanup(func() { _ = s.Close(); <-served })
	return path
}

// TestTheWholeConversation has more descriptors than fit into a message, and connections.
func TestTheWholeConversation(t *testing.T) {
	levelWhenDone(t)
	sent, ended := full(t, maxRights), make(chan error, 1)
	var flows []Flow
	for i := range 200 {
		f := Flow{Network: "n", State: []byte(strconv.Itoa(i)), Count: 2 + i%3}
		for range f.Count {
			f.FDs = append(f.FDs, file(t, strconv.Itoa(i)))
		}
		flows = append(flows, f)
	}
	path := serve(t, func(p *Peer) { ended <- errors.Join(p.Offer(sent), p.OfferFlows(flows), p.Close()) })
	got, gotFlows, err := Receive(path)
	if err != nil {
		t.Fatal(err)
	}
	got.check(t, sent)
	got.Close()
	got.Close() // once more is no harm
	if len(gotFlows) != len(flows) {
		t.Fatalf("%d connections, want %d", len(gotFlows), len(flows))
	}
	for i, f := range gotFlows {
		for _, fd := range f.FDs {
			if contents(t, fd) != string(flows[i].State) {
				t.Errorf("connection %d has a descriptor of %s", i, contents(t, fd))
			}
		}
		if string(f.State) != string(flows[i].State) || len(f.FDs) != len(flows[i].FDs) {
			t.Errorf("connection %d: %+v", i, f)
		}
		f.Close()
		flows[i].Close()
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if _, _, err := Receive(filepath.Join(t.TempDir(), "nobody")); !errors.Is(err, ErrNobody) {
		t.Errorf("of nobody: %v", err)
	}
}

// TestAnotherVersionIsRefused has both daemons say what to do, and the one that runs goes on.
func TestAnotherVersionIsRefused(t *testing.T) {
	for _, v := range []string{"", "0", "1", "3", "x"} {
		r := httptest.NewRequest("POST", Path, nil)
		r.Header.Set(versionHeader, v)
		if _, err := Serve(httptest.NewRecorder(), r); err == nil || !strings.Contains(err.Error(), "version 2") {
			t.Errorf("version %q: %v", v, err)
		}
	}
	for name, answer := range map[string]string{
		"a refusal": "HTTP/1.1 501 Not Implemented\r\nContent-Type: application/json\r\n\r\n{\"message\":\"this daemon hands over by version 3\"}",
		"no HTTP":   "hello\r\n\r\n",
		"too long":  strings.Repeat("x", maxHead+1),
		"the end":   "HTTP/1.1 101",
	} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1024))
			_, _ = c.Write([]byte(answer))
			_ = c.Close()
		}()
		_, _, err = Receive(path)
		_ = l.Close()
		if err == nil || name == "a refusal" &&
			(!strings.Contains(err.Error(), "version 3") || !strings.Contains(err.Error(), "stop it")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// raw is a message as it goes over the wire.
func raw(kind byte, text string) string {
	return string(append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(text))), text...))
}

// TestReceived gives what another daemon may send: each item is a message, with as many descriptors beside it.
func TestReceived(t *testing.T) {
	type item struct {
		fds  int
		text string
	}
	api, end := item{1, raw('d', `[{"Kind":"api"}]`)}, item{0, raw('e', "null")}
	tap := `[{"Kind":"sandbox-tap","Container":"c","Endpoint":"e","Name":"eth0"}]`
	for name, test := range map[string]struct {
		items []item
		want  []ID
		fails string
	}{
		"the API alone": {items: []item{api, end}, want: []ID{{Kind: API}}},
		"a TAP": {items: []item{api, {1, raw('d', tap)}, end},
			want: []ID{{Kind: API}, {Kind: TAP, Container: "c", Endpoint: "e", Name: "eth0"}}},
		"an unknown kind": {items: []item{api, {3, raw('z', `{"new":1}`)}, end}, want: []ID{{Kind: API}}},
		"unknown fields":  {items: []item{api, {1, raw('d', `[{"Kind":"new","More":[1]}]`)}, end}, want: []ID{{Kind: API}, {Kind: "new"}}},
		"one twice": {items: []item{api, {1, raw('d', tap)}, {1, raw('d', tap)}, end},
			want: []ID{{Kind: API}, {Kind: TAP, Container: "c", Endpoint: "e", Name: "eth0"}}},
		"descriptors with the end": {items: []item{api, {2, raw('e', "null")}}, want: []ID{{Kind: API}}},
		"fewer descriptors": {items: []item{api, {0, raw('d', tap)}, end},
			fails: "0 descriptors were handed over as 1"},
		"more descriptors": {items: []item{api, {2, raw('d', tap)}, end},
			fails: "2 descriptors were handed over as 1"},
		"no JSON":               {items: []item{api, {1, raw('d', "x")}, end}, fails: "cannot be read"},
		"no listener":           {items: []item{{1, raw('d', tap)}, end}, fails: "listener"},
		"nothing":               {fails: "ended while it handed over"},
		"the end is missing":    {items: []item{api}, fails: "ended while it handed over"},
		"cut off in the length": {items: []item{api, {2, "d\x00\x00"}}, fails: "ended while it handed over"},
		"cut off in the body": {items: []item{api, {2, "d\x00\x00\x00\x09[{"}},
			fails: "ended while it handed over"},
		"cut off in an unknown one": {items: []item{api, {2, "z\x00\x00\x00\x09[{"}},
			fails: "ended while it handed over"},
		"a length beyond all": {items: []item{api, {2, "z\xff\xff\xff\xff"}}, fails: "4294967295 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			levelWhenDone(t)
			from, to := pair(t)
			fd := file(t, "something")
			for _, i := range test.items {
				if _, _, err := from.WriteMsgUnix([]byte(i.text), unix.UnixRights(slices.Repeat([]int{fd}, i.fds)...),
					nil); err != nil {
					t.Fatal(err)
				}
			}
			_, _ = from.Close(), unix.Close(fd)
			s := &Set{}
			err := s.receive(to)
			defer s.Close()
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("error %v, want one with %q", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(s.fds) != len(test.want) {
				t.Errorf("%v, want %v", s.fds, test.want)
			}
			for _, id := range test.want {
				if fd, ok := s.fds[id]; !ok || contents(t, fd) != "something" {
					t.Errorf("%s is missing", id)
				}
			}
		})
	}
}

// TestMoreThanMayBeOpen cannot go on: the kernel drops what does not fit.
func TestMoreThanMayBeOpen(t *testing.T) {
	levelWhenDone(t)
	from, to := pair(t)
	fd := file(t, "something")
	if _, _, err := from.WriteMsgUnix([]byte(raw('d', "[]")), unix.UnixRights(slices.Repeat([]int{fd}, 250)...),
		nil); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE,
		&unix.Rlimit{Cur: uint64(len(leak.Descriptors(t)) + 50), Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	s := &Set{}
	err := s.receive(to)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err == nil || !strings.Contains(err.Error(), "limit on open files") {
		t.Errorf("error %v", err)
	}
}

func TestASetGivesEachOnce(t *testing.T) {
	levelWhenDone(t)
	id := ID{Kind: TAP, Container: "c", Endpoint: "e", Name: "eth0"}
	s := &Set{}
	first, second := file(t, "first"), file(t, "second")
	s.Put(id, first)
	s.Put(id, second) // which closes the first
	for _, other := range []ID{{Kind: TAP}, {Kind: TAP, Container: "c", Endpoint: "o", Name: "eth0"},
		{Kind: TAP, Container: "c", Endpoint: "e", Name: "eth1"}} {
		if fd, ok := s.Take(other); ok {
			t.Errorf("%s is taken for %d", other, fd)
		}
	}
	fd, ok := s.Take(id)
	if !ok || contents(t, fd) != "second" {
		t.Errorf("got %d, %v", fd, ok)
	}
	if _, ok := s.Take(id); ok {
		t.Error("taken twice")
	}
	s.Close()
	if contents(t, fd) != "second" {
		t.Error("what was taken is closed")
	}
	_ = unix.Close(fd)
	var none *Set
	none.Close()
	if _, ok := none.Take(id); ok || none.Count(TAP) != 0 || len(none.TakeKind(TAP)) != 0 {
		t.Error("a nil table has something")
	}
}

func TestIDsAreNames(t *testing.T) {
	c := strings.Repeat("0123456789abcdef", 4)
	for _, id := range []ID{
		{Kind: TAP, Container: c, Endpoint: c, Name: "fifteen-letters"}, {Kind: DNSPacket, Container: c},
		{Kind: Published, Name: "tcp-..1-80-dual"}, {Kind: API},
	} {
		if got, ok := ParseID(id.String()); !ok || got != id || !id.storable() {
			t.Errorf("%s is read as %+v, %v; storable: %v", id, got, ok, id.storable())
		}
	}
	for _, name := range []string{"", "usernet", "usernet/sandbox-tap", "usernet////", "other/sandbox-tap/c/e/eth0",
		"connection", "web"} {
		if id, ok := ParseID(name); ok {
			t.Errorf("%q is read as %+v", name, id)
		}
	}
	for _, odd := range []string{"eth:0", "eth 0", "eth\n0", "\u00e9th0", strings.Repeat("x", maxName)} {
		if (ID{Kind: TAP, Name: odd}).storable() {
			t.Errorf("%q is no name that a service manager takes", odd)
		}
	}
}

// FuzzReceive has anything received instead of messages.
func FuzzReceive(f *testing.F) {
	f.Add([]byte(raw('d', `[{"Kind":"api"}]`) + raw('e', "null")))
	f.Add([]byte(raw('z', "") + raw('e', "")))
	f.Add([]byte(raw('e', "") + raw('f', `[{"Count":1}]`)))
	f.Add([]byte(raw('e', "") + raw('f', `[{"Network":"n","State":"e30="}]`)))
	f.Fuzz(func(t *testing.T, stream []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fds[0]), "to")
		defer file.Close()
		c, err := net.FileConn(file)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if len(stream) > 64<<10 {
			stream = stream[:64<<10] // what a socket takes without a reader
		}
		_, err = unix.Write(fds[1], stream)
		_ = unix.Close(fds[1])
		if err != nil {
			return // nothing to write
		}
		s := &Set{}
		_ = s.receive(c.(*net.UnixConn)) // whatever it says
		for _, f := range receiveFlows(c.(*net.UnixConn)) {
			f.Close()
		}
		s.Close()
	})
}
