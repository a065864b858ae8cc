package api

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// open counts this process's descriptors.
func open(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// levelWhenDone fails the test when it leaves descriptors behind. What was registered for cleanup later is done before.
func levelWhenDone(t *testing.T) {
	// Go's poller opens its own with the first socket.
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		_ = l.Close()
	}
	before := open(t)
	t.Cleanup(func() {
		deadline := time.Now().Add(20 * time.Second) // for the other end's goroutine
		for open(t) != before {
			if time.Now().After(deadline) {
				t.Fatalf("%d descriptors are open, %d were before", open(t), before)
			}
			time.Sleep(time.Millisecond) // between two looks
		}
	})
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
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func contents(t *testing.T, fd int) string {
	t.Helper()
	buf := make([]byte, 100)
	n, err := unix.Pread(fd, buf, 0)
	if err != nil {
		t.Fatalf("descriptor %d: %v", fd, err)
	}
	return string(buf[:n])
}

// pair returns the two ends of a handover.
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

// everything is a handover of which each descriptor says what it is.
func everything(t *testing.T, sandboxes int) *Handover {
	h := &Handover{API: file(t, "api")}
	h.Published = []int{file(t, "published 0"), file(t, "published 1")}
	h.Inherited = []int{file(t, "inherited")}
	for range sandboxes {
		h.Sandboxes = append(h.Sandboxes,
			SandboxFile{Kind: FileTAP, Container: strings.Repeat("c", 64), Endpoint: strings.Repeat("e", 64), Interface: "eth0", FD: file(t, "tap")},
			SandboxFile{Kind: FileDNSPacket, Container: strings.Repeat("c", 64), FD: file(t, "dns-udp")})
	}
	return h
}

func (h *Handover) check(t *testing.T, want *Handover) {
	t.Helper()
	if got := contents(t, h.API); got != "api" {
		t.Errorf("the API's listener is %q", got)
	}
	for name, lists := range map[string][2][]int{"published": {h.Published, want.Published}, "inherited": {h.Inherited, want.Inherited}} {
		if len(lists[0]) != len(lists[1]) {
			t.Fatalf("%d %s, want %d", len(lists[0]), name, len(lists[1]))
		}
		for i := range lists[0] {
			if got, want := contents(t, lists[0][i]), contents(t, lists[1][i]); got != want {
				t.Errorf("%s %d is %q, want %q", name, i, got, want)
			}
		}
	}
	if len(h.Sandboxes) != len(want.Sandboxes) {
		t.Fatalf("%d of sandboxes, want %d", len(h.Sandboxes), len(want.Sandboxes))
	}
	if len(h.Flows) != len(want.Flows) {
		t.Fatalf("%d connections, want %d", len(h.Flows), len(want.Flows))
	}
	for i, got := range h.Flows {
		if want := want.Flows[i]; string(got.State) != string(want.State) || len(got.FDs) != len(want.FDs) {
			t.Errorf("connection %d: %+v, want %+v", i, got, want)
		}
		for _, fd := range got.FDs {
			if contents(t, fd) != string(got.State) {
				t.Errorf("connection %d has a descriptor of %s", i, contents(t, fd))
			}
		}
	}
	for i, got := range h.Sandboxes {
		if contents(t, got.FD) != got.Kind {
			t.Errorf("of sandboxes %d: a %s came as %s", i, contents(t, got.FD), got.Kind)
		}
		want := want.Sandboxes[i]
		want.FD = got.FD
		if got != want {
			t.Errorf("of sandboxes %d: %+v, want %+v", i, got, want)
		}
	}
}

// TestHandoverOverTheAPI goes the whole way, with more descriptors than fit into a message.
func TestHandoverOverTheAPI(t *testing.T) {
	levelWhenDone(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	sent, ended := everything(t, maxRights), make(chan error, 1)
	for i := range 200 {
		f := FlowFiles{Network: "n", State: json.RawMessage(strconv.Itoa(i)), Count: 2 + i%3}
		for range f.Count {
			f.FDs = append(f.FDs, file(t, strconv.Itoa(i)))
		}
		sent.Flows = append(sent.Flows, f)
	}
	s := NewServer(nobody{}, slog.New(slog.DiscardHandler))
	s.OnHandover(func(c *Successor) {
		ended <- errors.Join(c.Give(sent), c.GiveFlows(sent.Flows), c.Close())
	})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	h, err := TakeOver(path)
	if err != nil {
		t.Fatal(err)
	}
	h.check(t, sent)
	h.Close()
	h.Close() // once more is no harm
	if err := errors.Join(<-ended, s.Close(), <-served); err != nil {
		t.Fatal(err)
	}
	if _, err := TakeOver(path); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("of nobody: %v", err)
	}
}

// TestHandoverToAnOlderDaemon sends it only what it knows: it takes anything else as an error.
func TestHandoverToAnOlderDaemon(t *testing.T) {
	levelWhenDone(t)
	from, to := pair(t)
	sent := everything(t, 3)
	gave := make(chan error, 1)
	go func() { gave <- (&Successor{UnixConn: from}).Give(sent) }()
	var kinds []byte
	for !slices.Contains(kinds, kindEnd) {
		buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(maxRights*4)) // as it reads
		_, n, _, _, err := to.ReadMsgUnix(buf, oob)
		if err != nil {
			t.Fatal(err)
		}
		fds, err := receivedRights(oob[:n])
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		kinds = append(kinds, buf[0])
	}
	if string(kinds) != "apie" {
		t.Errorf("an older daemon gets messages of the kinds %q", kinds)
	}
	if _, err := to.Write([]byte{kindTaken}); err != nil {
		t.Fatal(err)
	}
	if err := <-gave; err != nil {
		t.Error(err)
	}
}

// body is a message as a daemon sends it that is newer than this one.
func body(kind byte, text string) string {
	return string(append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(text))), text...))
}

// TestHandoverReceived gives what another daemon may send: each item is a message, with as many descriptors beside it.
func TestHandoverReceived(t *testing.T) {
	type item struct {
		fds  int
		text string
	}
	tap := `[{"Kind":"tap","Container":"c","Endpoint":"e","Interface":"eth0"}]`
	for name, test := range map[string]struct {
		items     []item
		published int
		sandboxes []SandboxFile
		fails     string
	}{
		"from an older daemon":      {items: []item{{1, "a"}, {2, "p"}, {0, "e"}}, published: 2},
		"an unknown kind":           {items: []item{{1, "a"}, {3, body('z', `{"new":1}`)}, {2, "p"}, {0, "e"}}, published: 2},
		"an unknown kind, empty":    {items: []item{{1, "a"}, {0, body('Z', "")}, {2, "p"}, {0, "e"}}, published: 2},
		"unknown of sandboxes":      {items: []item{{1, "a"}, {1, body('s', `[{"Kind":"new","Container":"c","More":[1]}]`)}, {0, "e"}}, sandboxes: []SandboxFile{{Kind: "new", Container: "c"}}},
		"a TAP":                     {items: []item{{1, "a"}, {1, body('s', tap)}, {0, "e"}}, sandboxes: []SandboxFile{{Kind: "tap", Container: "c", Endpoint: "e", Interface: "eth0"}}},
		"fewer descriptors":         {items: []item{{1, "a"}, {0, body('s', tap)}, {0, "e"}}, fails: "0 descriptors were handed over as 1"},
		"more descriptors":          {items: []item{{1, "a"}, {2, body('s', tap)}, {0, "e"}}, fails: "2 descriptors were handed over as 1"},
		"no JSON":                   {items: []item{{1, "a"}, {1, body('s', "x")}, {0, "e"}}, fails: "cannot be read"},
		"no listener":               {items: []item{{2, "p"}, {0, "e"}}, fails: "listener"},
		"two listeners":             {items: []item{{1, "a"}, {1, "a"}, {0, "e"}}, fails: "listener"},
		"a listener without":        {items: []item{{0, "a"}, {0, "e"}}, fails: "listener"},
		"descriptors with the end":  {items: []item{{1, "a"}, {2, "e"}}},
		"a refusal":                 {items: []item{{0, "HTTP/1.1 501 Not Implemented\r\n\r\n"}}, fails: "does not hand over"},
		"nothing":                   {fails: "ended while it handed over"},
		"the end is missing":        {items: []item{{1, "a"}, {2, "p"}}, fails: "ended while it handed over"},
		"cut off in the length":     {items: []item{{1, "a"}, {2, "s\x00\x00"}}, fails: "ended while it handed over"},
		"cut off in the body":       {items: []item{{1, "a"}, {2, "s\x00\x00\x00\x09[{"}}, fails: "ended while it handed over"},
		"cut off in an unknown one": {items: []item{{1, "a"}, {2, "z\x00\x00\x00\x09[{"}}, fails: "ended while it handed over"},
		"a length beyond all":       {items: []item{{1, "a"}, {2, "z\xff\xff\xff\xff"}}, fails: "4294967295 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			levelWhenDone(t)
			from, to := pair(t)
			fd := file(t, "something")
			for _, i := range test.items {
				if err := sendRights(from, []byte(i.text), slices.Repeat([]int{fd}, i.fds)); err != nil {
					t.Fatal(err)
				}
			}
			_ = from.Close()
			h := Handover{API: -1}
			err := h.receive(to)
			defer h.Close()
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("error %v, want one with %q", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(h.Published) != test.published {
				t.Errorf("%d published, want %d", len(h.Published), test.published)
			}
			for _, f := range h.Sandboxes {
				if contents(t, f.FD) != "something" {
					t.Errorf("%+v has another descriptor", f)
				}
			}
			got := slices.Clone(h.Sandboxes)
			for i := range got {
				got[i].FD = 0
			}
			if !slices.Equal(got, test.sandboxes) {
				t.Errorf("of sandboxes %+v, want %+v", got, test.sandboxes)
			}
		})
	}
}

// TestHandoverOfMoreThanMayBeOpen cannot go on: the kernel drops what does not fit.
func TestHandoverOfMoreThanMayBeOpen(t *testing.T) {
	levelWhenDone(t)
	from, to := pair(t)
	fd := file(t, "something")
	if err := sendRights(from, []byte{kindPublished}, slices.Repeat([]int{fd}, 100)); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(open(t) + 50), Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	h := Handover{API: -1}
	err := h.receive(to)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	h.Close()
	if err == nil || !strings.Contains(err.Error(), "limit on open files") {
		t.Errorf("error %v", err)
	}
}

// FuzzHandover has anything received instead of messages.
func FuzzHandover(f *testing.F) {
	f.Add([]byte("ape"))
	f.Add([]byte(body('s', `[{"Kind":"tap"}]`) + "e"))
	f.Add([]byte(body('z', "") + "e"))
	f.Add([]byte("e" + body('f', `[{"Count":1}]`)))
	f.Add([]byte("e" + body('f', `[{"Network":"n","State":{}}]`)))
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
		h := Handover{API: -1}
		_ = h.receive(c.(*net.UnixConn)) // whatever it says
		h.receiveFlows(c.(*net.UnixConn))
		h.Close()
	})
}
