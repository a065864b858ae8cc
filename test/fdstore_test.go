package test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is the descriptor store of a service manager (systemd.service(5), FileDescriptorStoreMax=).
type manager struct {
	mu   sync.Mutex
	kept map[string]*os.File
	most int // that it has kept at a time
	fed  int // how often it was told that the daemon lives (sd_notify(3), WATCHDOG=1)
}

// startManager listens at a path as sd_pid_notify_with_fds(3) has it, until the test ends.
func startManager(t *testing.T, path string) *manager {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{kept: map[string]*os.File{}}
	t.Cleanup(func() {
		c.Close()
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, f := range m.kept {
			f.Close()
		}
	})
	go func() {
		message, oob := make([]byte, 4096), make([]byte, 4096)
		for {
			n, oobn, _, _, err := c.ReadMsgUnix(message, oob)
			if err != nil {
				return
			}
			m.take(string(message[:n]), oob[:oobn])
		}
	}()
	return m
}

func (m *manager) take(state string, oob []byte) {
	var files []*os.File
	controls, _ := unix.ParseSocketControlMessage(oob)
	for _, control := range controls {
		fds, _ := unix.ParseUnixRights(&control)
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "kept"))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if state == "WATCHDOG=1" {
		m.fed++
		return
	}
	name := ""
	for _, line := range strings.Split(state, "\n") {
		if value, ok := strings.CutPrefix(line, "FDNAME="); ok {
			name = value
		}
	}
	if old := m.kept[name]; old != nil {
		old.Close()
		delete(m.kept, name)
	}
	if strings.Contains(state, "FDSTORE=1") && len(files) == 1 {
		m.kept[name] = files[0]
		files = nil
	}
	for _, f := range files { // a barrier (sd_notify_barrier(3))
		f.Close()
	}
	m.most = max(m.most, len(m.kept))
}

// starts has the daemon be started with what is kept.
func (m *manager) starts(d *daemon) {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.Sorted(maps.Keys(m.kept))
	d.files = nil
	for _, name := range names {
		d.files = append(d.files, m.kept[name])
	}
	d.prefix = []string{"sh", "-c", fmt.Sprintf(`LISTEN_PID=$$ LISTEN_FDS=%d LISTEN_FDNAMES=%s exec "$@"`, len(names), strings.Join(names, ":")), "sh"}
}

// holds waits until so many are kept under names that begin with prefix.
func (m *manager) holds(t *testing.T, prefix string, want int) {
	t.Helper()
	eventually(t, func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		n := 0
		for name := range m.kept {
			if strings.HasPrefix(name, prefix) {
				n++
			}
		}
		if n != want {
			return fmt.Errorf("%d of %s are kept, want %d: %v", n, prefix, want, slices.Sorted(maps.Keys(m.kept)))
		}
		return nil
	})
}

// TestServiceManagerKeepsPorts kills the daemon and starts it again with the sockets that it had the service manager
// keep: who connects in between waits.
func TestServiceManagerKeepsPorts(t *testing.T) {
	d := newDaemon(t)
	notify := filepath.Join(d.dir, "notify")
	m := startManager(t, notify)
	t.Setenv("NOTIFY_SOCKET", notify)
	d.start()
	port, other, gone := freePort(), freePort(), freePort()
	d.serve("web", []string{"-p", fmt.Sprintf("%d:80", port), "-p", fmt.Sprintf("[::1]:%d:80", other), "-p",
		fmt.Sprintf("%d:53/udp", port), "-p", fmt.Sprintf("127.0.0.1:%d:81", gone)},
		helper, "tcpserve", ":80", "echo")
	d.ok("port", "rm", "web", fmt.Sprintf("127.0.0.1:%d:81", gone))
	holds := func(want int) {
		t.Helper()
		m.holds(t, "usernet/", want)
	}
	holds(3)
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		d.stop(signal)
		var waiting []net.Conn
		for _, at := range []string{fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("[::1]:%d", other)} {
			c, err := net.DialTimeout("tcp", at, patience)
			if err != nil {
				t.Fatalf("while no daemon runs: %v", err)
			}
			defer c.Close()
			waiting = append(waiting, c)
		}
		if _, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", gone)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a port that is published no more: %v", err)
		}
		m.starts(d)
		d.start()
		for _, c := range waiting {
			c.SetDeadline(time.Now().Add(patience))
			got := make([]byte, 5)
			if _, err := io.WriteString(c, "hello"); err != nil {
				t.Error(err)
			} else if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
				t.Errorf("who connected while no daemon ran gets %q, %v", got, err)
			}
		}
		holds(3)
	}
	// What nobody wants any more goes.
	d.stop(syscall.SIGKILL)
	file, err := listeningFile(fmt.Sprintf("127.0.0.1:%d", gone))
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.kept[fmt.Sprintf("usernet/published///tcp-127.0.0.1-%d", gone)] = file
	m.mu.Unlock()
	m.starts(d)
	d.start()
	holds(3)
}
