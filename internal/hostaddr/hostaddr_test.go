package hostaddr

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/leak"
)

// roleVariable has the test binary be the process in a network namespace of its own.
const roleVariable = "USERNET_HOSTADDR_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		if err := watchOneChange(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestChangesAreSeen adds and removes an address in a network namespace of the test's own.
func TestChangesAreSeen(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// watchOneChange has Has follow an address that comes and goes, with the list read only when a change is announced.
func watchOneChange() error {
	s := Watch()
	defer s.Close()
	if s.changes == nil {
		return errors.New("changes are not announced")
	}
	for _, a := range []string{"192.0.2.77", "2001:db8::77"} {
		addr := netip.MustParseAddr(a)
		if s.Has(addr) {
			return fmt.Errorf("%s is the machine's before it was added", a)
		}
		for _, step := range []struct {
			command string
			want    bool
		}{{"add", true}, {"del", false}} {
			if out, err := exec.Command("ip", "addr", step.command, a, "dev", "lo").CombinedOutput(); err != nil {
				return fmt.Errorf("ip addr %s %s: %w: %s", step.command, a, err, out)
			}
			if err := eventually(func() bool { return s.Has(addr) == step.want }); err != nil {
				return fmt.Errorf("after ip addr %s %s: %w", step.command, a, err)
			}
		}
	}
	return nil
}

func eventually(f func() bool) error {
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("the change is not seen")
		}
	}
	return nil
}

// fake is a set whose list the test sets, without announcements.
func fake(addrs ...string) (*Set, *atomic.Int32) {
	reads := new(atomic.Int32)
	done := make(chan struct{})
	close(done)
	return &Set{done: done, list: func() ([]net.Addr, error) {
		reads.Add(1)
		if len(addrs) == 0 {
			return nil, errors.New("no list")
		}
		var list []net.Addr
		for _, a := range addrs {
			list = append(list, &net.IPNet{IP: net.ParseIP(a)})
		}
		return list, nil
	}}, reads
}

func TestHas(t *testing.T) {
	s, _ := fake("192.0.2.1", "fe80::1", "2001:db8::1")
	for _, test := range []struct {
		addr string
		want bool
	}{
		{"192.0.2.1", true},
		{"::ffff:192.0.2.1", true},
		{"192.0.2.2", false},
		{"127.0.0.1", true},
		{"::1", true},
		{"fe80::1%eth0", true},
		{"fe80::2%eth0", false},
		{"2001:db8::1", true},
		{"2001:db8::2", false},
	} {
		if got := s.Has(netip.MustParseAddr(test.addr)); got != test.want {
			t.Errorf("Has(%s) = %t", test.addr, got)
		}
	}
}

func TestEveryAddressCountsWhileTheListCannotBeRead(t *testing.T) {
	s, _ := fake()
	if !s.Has(netip.MustParseAddr("192.0.2.1")) {
		t.Error("an address counts as foreign though nothing is known")
	}
}

func TestWithoutAnnouncementsTheListIsReadWhenItIsOld(t *testing.T) {
	s, reads := fake("192.0.2.1")
	for range 10 {
		s.Has(netip.MustParseAddr("192.0.2.1"))
	}
	if n := reads.Load(); n > 2 { // twice where this took longer than maxAge
		t.Errorf("the list was read %d times", n)
	}
	old := *s.now.Load()
	old.read = old.read.Add(-2 * maxAge)
	s.now.Store(&old)
	before := reads.Load()
	s.Has(netip.MustParseAddr("192.0.2.1"))
	if reads.Load() != before+1 {
		t.Error("an old list was not read anew")
	}
}

func TestCloseEndsTheGoroutine(t *testing.T) {
	goroutines, descriptors := leak.Goroutines(), leak.Descriptors(t)
	s := Watch()
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	goroutines.NoneLeft(t)
	descriptors.NoneLeft(t)
}

func TestHasAllocatesNothing(t *testing.T) {
	s := Watch()
	defer s.Close()
	a := netip.MustParseAddr("192.0.2.1")
	if n := testing.AllocsPerRun(100, func() { s.Has(a) }); n != 0 && s.changes != nil {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHas(b *testing.B) {
	s := Watch()
	defer s.Close()
	a := netip.MustParseAddr("192.0.2.1")
	for b.Loop() {
		s.Has(a)
	}
}
