package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/errdefs"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/network"
)

// filesBackend says what came as a descriptor.
type filesBackend struct {
	nobody
	got chan string // the content of each descriptor, or "none"
}

func (b filesBackend) Attach(_ context.Context, q AttachRequest, f *os.File) (*network.Container, error) {
	if f == nil {
		b.got <- "none"
		return nil, errdefs.Invalid("no descriptor")
	}
	defer f.Close()
	text := make([]byte, 99)
	n, err := f.ReadAt(text, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	b.got <- string(text[:n])
	return &network.Container{Name: q.Spec.Name}, nil
}

func (filesBackend) ContainerFiles(string) (StartReply, error) {
	return StartReply{ResolvConf: "nameserver 127.0.0.11\n"}, nil
}

// serveFiles serves on a socket until the test ends.
func serveFiles(t *testing.T) (b filesBackend, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "un-api-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	b = filesBackend{got: make(chan string, 9)}
	s := NewServer(b, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return b, socket
}

// fileWith is an open file with a text in it.
func fileWith(t *testing.T, text string) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestDescriptorsComeWithTheirRequest(t *testing.T) {
	b, socket := serveFiles(t)
	c := NewClient(socket)
	for i := range 5 {
		text := fmt.Sprint("file ", i)
		f := fileWith(t, text)
		made, err := c.Attach(
			t.Context(),
			AttachRequest{
				Spec: network.ContainerSpec{
					Name:   "c1",
					Labels: map[string]string{"long": strings.Repeat("x", 100<<10)},
				},
			},
			f,
		)
		if err != nil || made.Name != "c1" || made.Files.ResolvConf == "" {
			t.Fatalf("%+v, %v", made, err)
		}
		if got := <-b.got; got != text {
			t.Errorf("request %d came with %q", i, got)
		}
		if _, err := f.Stat(); err != nil {
			t.Errorf("the client's own descriptor is closed: %v", err)
		}
	}
	if err := c.Do(t.Context(), "POST", "/usernet/attachments", AttachRequest{}, nil); err == nil || <-b.got != "none" {
		t.Errorf("a request without a descriptor: %v", err)
	}
}

// TestUnwantedDescriptorsAreClosed sends many, at once and one after the other, with requests that take none and with
// no request at all. At most a few are held, and none once the connection has ended.
func TestUnwantedDescriptorsAreClosed(t *testing.T) {
	_, socket := serveFiles(t)
	f := fileWith(t, "unwanted")
	before := leak.Descriptors(t)
	for _, perMessage := range []int{1, 3, 200} {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		fds := make([]int, perMessage)
		for i := range fds {
			fds[i] = int(f.Fd())
		}
		for range 20 {
			request := "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
			if _, _, err := c.(*net.UnixConn).WriteMsgUnix([]byte(request), unix.UnixRights(fds...), nil); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := c.Read(make([]byte, 4096)); err != nil {
				t.Fatal(err)
			}
			if now := before.New(t); len(now) > 2+maxConnectionFiles { // 2: the ends of the connection
				t.Fatalf("%d descriptors are open that were not before: %v", len(now), now)
			}
		}
		_ = c.Close()
		before.NoneLeft(t)
	}
}

// TestReadAfterADeadlineReadsNothing has a deadline pass while a connection is read from: net/http sets one for idle
// connections, and bufio panics where a reader says that it has read less than nothing.
func TestReadAfterADeadlineReadsNothing(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	f := os.NewFile(uintptr(pair[0]), "one end")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	conn := &fileConn{UnixConn: c.(*net.UnixConn), oob: make([]byte, 64)}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes, %v", n, err)
	}
}
