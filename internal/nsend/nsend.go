// Package nsend tells when a network namespace has been given up by those that it was made for: its process has ended,
// or its path leads elsewhere. Programs that hold the namespace themselves, by an interface's descriptor or a thread
// inside, learn it in no other way.
//
//	gone, err := nsend.Watch(ctx, "/run/user/1000/netns/netns-1", 0)
//	<-gone
package nsend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// lookEvery is how often the namespace's path is looked at where nothing tells of its end: a path in /proc, or a mount
// that is taken away from over it.
const lookEvery = 500 * time.Millisecond

// Watch returns what is closed when the namespace at path is given up, until ctx ends. pid is the process whose end is
// the namespace's end; 0: none is known. Path may be "" where pid is given: it is that of the process then.
//
// Podman binds the ports of a container that it starts again within tens of milliseconds of the end of the one before,
// so the kernel is asked to tell: of the process by a pidfd, of the path by inotify(7) on its directory.
func Watch(ctx context.Context, path string, pid int) (<-chan struct{}, error) {
	if path == "" {
		path = fmt.Sprintf("/proc/%d/ns/net", pid)
	}
	var first unix.Stat_t
	if err := unix.Stat(path, &first); err != nil {
		return nil, fmt.Errorf("couldn't open network namespace %s: %w", path, err)
	}
	gone, hints := make(chan struct{}), events(ctx, path, pid)
	go func() { // until ctx ends, or the namespace
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			var now unix.Stat_t
			if err := unix.Stat(path, &now); err != nil || now.Ino != first.Ino || now.Dev != first.Dev {
				close(gone)
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-hints:
			case <-tick.C:
			}
		}
	}()
	return gone, nil
}

// events returns what has a signal when the namespace may be gone, until ctx ends. Where the kernel cannot tell, it has
// none.
func events(ctx context.Context, path string, pid int) <-chan struct{} {
	c := make(chan struct{}, 1)
	fd, err := -1, error(nil)
	if pid != 0 {
		fd, err = unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	} else if fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err == nil {
		_, err = unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_DELETE_SELF)
	}
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return c
	}
	f := os.NewFile(uintptr(fd), "end of the namespace")
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	go func() { // until ctx ends, or the process of the pidfd
		defer f.Close()
		defer stop()
		for waitReadable(f) == nil {
			select {
			case c <- struct{}{}:
			default:
			}
			if pid != 0 {
				return // it stays readable
			}
			if _, err := f.Read(make([]byte, 4096)); err != nil && !errors.Is(err, unix.EAGAIN) {
				return
			}
		}
	}()
	return c
}

// waitReadable returns when there is something to read, without reading it: a pidfd has nothing that could be.
func waitReadable(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		events, err := sockio.Ready(int(fd), unix.POLLIN)
		return events != 0 || err != nil
	})
}
