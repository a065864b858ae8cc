package api

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// otherUser is set in a process of this test's binary that connects to the socket at its value as another user.
const otherUser = "USERNET_TEST_OTHER_USER"

// otherUserID is a user that exists nowhere in these tests: any but this one and root is to be refused.
const otherUserID = 54321

func TestMain(m *testing.M) {
	if socket := os.Getenv(otherUser); socket != "" {
		status, err := ping(socket)
		fmt.Println(os.Geteuid(), status, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// ping asks for an answer over the socket.
func ping(socket string) (status int, err error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprint(c, "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return 0, err
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	return r.StatusCode, r.Body.Close()
}

// serveOpen serves on a socket that every user can connect to, so that only the credentials are in the way.
func serveOpen(t *testing.T) (socket string) {
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
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	s := guarded()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return socket
}

// TestKernelSaysWhoAsks connects as another user, whom the kernel names (SO_PEERCRED): nothing that the peer sends is
// asked. Root can become any user, and an ordinary user one of its subordinate users (subuid(5)). Without those it can
// only call itself otherwise in a user namespace of its own: then the test is that the daemon sees the user behind it.
func TestKernelSaysWhoAsks(t *testing.T) {
	socket := serveOpen(t)
	if status, err := ping(socket); err != nil || status != http.StatusOK {
		t.Fatalf("this user: status %d, %v", status, err)
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	readable(t, exe)
	cmd, as, want := exec.Command(exe), otherUserID, http.StatusForbidden
	switch {
	case os.Geteuid() == 0:
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUserID, Gid: otherUserID}}
	case exec.Command("unshare", "--user", "--map-auto", "--setuid", "0", "true").Run() == nil:
		cmd, as = exec.Command("unshare", "--user", "--map-auto", "--setuid", "0", exe), 0
	default:
		want = http.StatusOK
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: otherUserID, HostID: os.Geteuid(), Size: 1}},
		}
	}
	cmd.Env = append(os.Environ(), otherUser+"="+socket)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := strings.TrimSpace(string(out)), fmt.Sprintf("%d %d <nil>", as, want); got != want {
		t.Errorf("the other user got %q, want %q", got, want)
	}
	t.Logf("user %d, who calls itself %d, gets status %d", os.Geteuid(), as, want)
}

// readable lets other users execute the test's binary, which `go test` puts into a directory of its own.
func readable(t *testing.T, path string) {
	t.Helper()
	for p := filepath.Dir(path); p != "/" && p != os.TempDir(); p = filepath.Dir(p) {
		if info, err := os.Stat(p); err == nil && info.Mode().Perm()&0o001 == 0 {
			if err := os.Chmod(p, info.Mode().Perm()|0o011); err != nil {
				t.Fatal(err)
			}
		}
	}
}
