package sandbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// checkMaps says whether ids begin at 0, have no gap, and are no more than allowed.
func checkMaps(t *testing.T, what string, maps []syscall.SysProcIDMap) {
	t.Helper()
	next := 0
	for _, m := range maps {
		if m.ContainerID != next || m.Size < 1 {
			t.Errorf("%s: %v has a gap", what, maps)
		}
		next += m.Size
	}
	if next < 1 || next > maxIDs {
		t.Errorf("%s: %v has %d ids", what, maps, next)
	}
}

// TestRangesFollowEachOther compares appendIDs with what takes one id after the other.
func TestRangesFollowEachOther(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var ranges []idRange
		for range 1 + random.IntN(5) {
			ranges = append(ranges, idRange{random.IntN(1 << 30), 1 + random.IntN(40000)})
		}
		var first []syscall.SysProcIDMap
		want := map[int]int{}
		if random.IntN(2) == 0 {
			first = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}}
			want[0] = 1000
		}
		for _, r := range ranges {
			for id := r.start; id < r.start+r.count && len(want) < maxIDs; id++ {
				want[len(want)] = id
			}
		}
		got := appendIDs(first, ranges)
		checkMaps(t, fmt.Sprint(ranges), got)
		n := 0
		for _, m := range got {
			n += m.Size
			for i := range m.Size {
				if want[m.ContainerID+i] != m.HostID+i {
					t.Fatalf("%v: %v has %d for %d, want %d", ranges, got, m.HostID+i, m.ContainerID+i,
						want[m.ContainerID+i])
				}
			}
		}
		if n != len(want) {
			t.Errorf("%v: %v has %d ids, want %d", ranges, got, n, len(want))
		}
	}
}

// TestIDsAreChosenByModeAndRoot holds on machines with subordinate ids for this user and on others.
func TestIDsAreChosenByModeAndRoot(t *testing.T) {
	_, _, missing := subordinateIDs()
	own := t.TempDir()
	for _, c := range []struct {
		name        string
		spec        Spec
		subordinate bool // where there are any
		caller      bool // root is the caller
		fails       bool // where there are none
	}{
		{"nothing said, the caller's files", Spec{}, false, true, false},
		{"auto, the caller's files", Spec{UserNS: UserNSAuto}, false, true, false},
		{"host, a root file system", Spec{UserNS: UserNSHost, Rootfs: own}, false, true, false},
		{"nothing said, the caller's root file system", Spec{Rootfs: own}, true, true, false},
		{"nothing said, root's root file system", Spec{Rootfs: "/"}, true, os.Geteuid() == 0, false},
		{"auto, a root file system that is not there", Spec{UserNS: UserNSAuto, Rootfs: own + "/none"}, true, false,
			false},
		{"range, the caller's files", Spec{UserNS: UserNSRange}, true, false, true},
		{"range, the caller's root file system", Spec{UserNS: UserNSRange, Rootfs: own}, true, false, true},
	} {
		m, err := mapsFor(c.spec)
		if missing != nil && c.fails {
			if err == nil || err.Error() != missing.Error() {
				t.Errorf("%s: %v, want %v", c.name, err, missing)
			}
			continue
		}
		if err != nil || m.subordinate != (c.subordinate && missing == nil) {
			t.Errorf("%s: subordinate ids %v, %v", c.name, m.subordinate, err)
			continue
		}
		checkMaps(t, c.name, m.uids)
		checkMaps(t, c.name, m.gids)
		caller := m.uids[0].HostID == os.Geteuid() && m.uids[0].Size == 1 && m.gids[0].HostID == os.Getegid()
		if caller != (c.caller || missing != nil) {
			t.Errorf("%s: %+v", c.name, m)
		}
	}
}

// TestIDsAreMappedByTheTools puts programs in the place of newuidmap(1) and newgidmap(1), which note what they are
// called with.
func TestIDsAreMappedByTheTools(t *testing.T) {
	m := idMaps{
		uids: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1},
			{ContainerID: 1, HostID: 165536, Size: 9}},
		gids: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 300000, Size: 65536}},
	}
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	tool := func(name, script string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tool("newuidmap", `echo "$@" > `+dir+"/uids")
	tool("newgidmap", `echo "$@" > `+dir+"/gids")
	if err := m.install(4242, false); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"uids": "4242 0 1000 1 1 165536 9\n", "gids": "4242 0 300000 65536\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"newgidmap", "newuidmap"} {
		tool(name, "echo not allowed >&2; exit 1")
		if err := m.install(4242, false); !errors.Is(err, errIDs) || !strings.Contains(err.Error(), "not allowed") {
			t.Errorf("%s fails: %v", name, err)
		}
		tool(name, "exit 0")
	}
}

func TestSubordinateIDsNeedTheirTools(t *testing.T) {
	for _, have := range []string{"", "newuidmap"} {
		dir := t.TempDir()
		if have != "" {
			if err := os.WriteFile(filepath.Join(dir, have), []byte("#!/bin/sh\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("PATH", dir)
		want := "newuidmap is missing"
		if have != "" {
			want = "newgidmap is missing"
		}
		if _, _, err := subordinateIDs(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %q: %v", have, err)
		}
	}
}

func TestAllCapabilitiesAreThoseOfTheKernel(t *testing.T) {
	caps := allCapabilities()
	for i, c := range caps {
		if int(c) != i {
			t.Fatalf("%v has a gap", caps)
		}
	}
	if last := sysctl("kernel.cap_last_cap"); last != "" && fmt.Sprint(len(caps)-1) != last {
		t.Errorf("%d capabilities, the last of the kernel is %s", len(caps), last)
	}
	if sysctl("no.such.setting") != "" {
		t.Error("a setting that does not exist has a value")
	}
}

// TestFiltersThatAreNoneAreRefused: before the system call, which would put them on this thread.
func TestFiltersThatAreNoneAreRefused(t *testing.T) {
	if err := load(nil); err != nil {
		t.Errorf("no filter: %v", err)
	}
	for _, size := range []int{1, 7, 9, 8*4096 + 8} {
		if err := load(make([]byte, size)); err == nil || !strings.Contains(err.Error(), "makes no sense") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestWithoutLimitsTheCallIsMade(t *testing.T) {
	why, called := errors.New("why"), false
	err := (*Limits)(nil).limited(func() error { called = true; return why })
	if !called || !errors.Is(err, why) {
		t.Errorf("called %v, %v", called, err)
	}
}
