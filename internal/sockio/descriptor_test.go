package sockio

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func flagsOf(t *testing.T, fd int) int {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

func TestDup(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := Dup(w)
	if err != nil {
		t.Fatal(err)
	}
	if flagsOf(t, fd)&unix.FD_CLOEXEC == 0 {
		t.Error("it stays open on exec")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		t.Errorf("the copy ended with the original: %v", err)
	}
	_ = unix.Close(fd)
	if fd, err := Dup(w); err == nil || fd != -1 {
		t.Errorf("of a closed file: %d, %v", fd, err)
	}
}

// TestParseRights sends descriptors over a socket pair, beside a control message of another kind.
func TestParseRights(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(pair[:])
	if err := unix.SetsockoptInt(pair[1], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(pair[0], pair[1]), nil, 0); err != nil {
		t.Fatal(err)
	}
	oob := make([]byte, 256)
	_, n, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := ParseRights(oob[:n])
	if err != nil || len(fds) != 2 {
		t.Fatalf("%v, %v", fds, err)
	}
	Close(fds)
}

func TestDamagedControlMessages(t *testing.T) {
	rights := unix.UnixRights(7, 8)
	if fds, err := ParseRights(rights[:unix.SizeofCmsghdr-1]); len(fds) != 0 || err != nil {
		t.Errorf("less than a header: %v, %v", fds, err) // to the kernel that is nothing
	}
	for name, oob := range map[string][]byte{
		"nothing": nil,
		"a length beyond the message": func() []byte {
			b := append([]byte(nil), rights...)
			b[0] = 200
			return b
		}(),
	} {
		fds, err := ParseRights(oob)
		if len(fds) != 0 || (err == nil) != (oob == nil) {
			t.Errorf("%s: %v, %v", name, fds, err)
		}
	}
}

func TestDupOfAClosedSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if _, err := Dup(l.(*net.TCPListener)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("of a closed socket: %v", err)
	}
}

func socketPair(t *testing.T, kind int) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		t.Cleanup(func() { c.Close() })
		conns[i] = c.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

func TestRightsArrive(t *testing.T) {
	for _, test := range []struct {
		sent, wanted, got int
		truncated         bool
	}{{0, 3, 0, false}, {1, 3, 1, false}, {3, 3, 3, false}, {5, 3, 3, true}, {MaxRights, MaxRights, MaxRights, false}} {
		a, b := socketPair(t, unix.SOCK_SEQPACKET)
		fds := make([]int, test.sent)
		for i := range fds {
			fds[i] = 0
		}
		if n, err := WriteRights(a, []byte("hello"), fds...); n != 5 || err != nil {
			t.Fatalf("%d descriptors: %d, %v", test.sent, n, err)
		}
		buf := make([]byte, 10)
		r, err := ReadRights(b, buf, test.wanted)
		if err != nil {
			t.Fatal(err)
		}
		// The kernel rounds the room for descriptors up to whole words, so that one more may fit.
		if string(buf[:r.N]) != "hello" || len(r.FDs) < test.got || len(r.FDs) > test.got+1 || r.Truncated !=
			test.truncated {
			t.Errorf("of %d descriptors, %d wanted, %d came: %+v", test.sent, test.wanted, len(r.FDs), r)
		}
		for _, fd := range r.FDs {
			if flagsOf(t, fd)&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor %d stays open on exec", fd)
			}
		}
		Close(r.FDs)
	}
	a, b := socketPair(t, unix.SOCK_SEQPACKET)
	_ = a.Close()
	if r, err := ReadRights(b, make([]byte, 1), 1); err == nil && r.N != 0 {
		t.Errorf("at the end: %+v", r)
	}
	a, b = socketPair(t, unix.SOCK_STREAM)
	_ = a.Close()
	if _, err := ReadRights(b, make([]byte, 1), 1); !errors.Is(err, io.EOF) {
		t.Errorf("at the end of a stream: %v", err)
	}
}
