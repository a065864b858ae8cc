package leak

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long something may take to be closed or to end on a busy machine.
const patience = 30 * time.Second

// A File is an open descriptor and what it leads to. Two with the same number are different when one was closed and the
// number used again, but for files that have no inode of their own (eventfd, epoll, pidfd).
type File struct {
	FD       int
	Name     string // of the link in /proc/self/fd
	Dev, Ino uint64
}

func (f File) String() string { return fmt.Sprintf("%d (%s)", f.FD, f.Name) }

// Is returns what a descriptor leads to, and false when it is closed.
func Is(fd int) (File, bool) {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return File{}, false
	}
	var stat unix.Stat_t
	if unix.Fstat(fd, &stat) != nil {
		return File{}, false
	}
	return File{FD: fd, Name: name, Dev: stat.Dev, Ino: stat.Ino}, true
}

// Files returns what each of some descriptors leads to. One that is closed fails the test.
func Files(t testing.TB, fds ...int) []File {
	t.Helper()
	files := make([]File, len(fds))
	for i, fd := range fds {
		var open bool
		if files[i], open = Is(fd); !open {
			t.Fatalf("descriptor %d is closed", fd)
		}
	}
	return files
}

// Closed fails the test unless files are closed before long.
func Closed(t testing.TB, files ...File) {
	t.Helper()
	wait(t, func() []string {
		var open []string
		for _, f := range files {
			if now, is := Is(f.FD); is && now == f {
				open = append(open, f.String())
			}
		}
		return open
	}, "descriptors are still open")
}

// Open is a set of descriptors.
type Open map[File]bool

// poller has Go's runtime open the descriptors of its poller, which it does with the first socket.
var poller = sync.OnceFunc(func() {
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		_ = l.Close()
	}
})

// Descriptors returns those of this process.
func Descriptors(t testing.TB) Open {
	t.Helper()
	poller()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	open := make(Open, len(list))
	for _, entry := range list {
		fd, err := strconv.Atoi(filepath.Base(entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if f, is := Is(fd); is { // not that of the directory itself
			open[f] = true
		}
	}
	return open
}

// New returns the descriptors that are not in the set, in order.
func (o Open) New(t testing.TB) []File {
	t.Helper()
	var found []File
	for f := range Descriptors(t) {
		if !o[f] {
			found = append(found, f)
		}
	}
	slices.SortFunc(found, func(a, b File) int { return a.FD - b.FD })
	return found
}

// NoneLeft fails the test unless descriptors that are not in the set are closed before long.
func (o Open) NoneLeft(t testing.TB) {
	t.Helper()
	wait(t, func() []string {
		var left []string
		for _, f := range o.New(t) {
			left = append(left, f.String())
		}
		return left
	}, "descriptors are open that were not before")
}

// wait fails the test unless a list becomes empty in time.
func wait(t testing.TB, list func() []string, what string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // between two looks
		left := list()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d %s:\n%s", len(left), what, strings.Join(left, "\n"))
		}
	}
}
