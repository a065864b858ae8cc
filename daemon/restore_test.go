package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/handover"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// TestRestore starts on each kind of record that a daemon can leave behind when it is killed.
func TestRestore(t *testing.T) {
	pid, start := self(t)
	here, there := sandbox.NamespaceID{Dev: 7, Ino: 1}, sandbox.NamespaceID{Dev: 7, Ino: 2}
	const path = "/run/netns/c1"
	running := func(change func(*network.Container)) func(*network.Container) {
		return func(c *network.Container) {
			c.Status, c.Started = network.Running, time.Now()
			change(c)
		}
	}
	process := func(start uint64) func(*network.Container) {
		return running(func(c *network.Container) { c.Pid, c.PidStart = pid, start })
	}
	for name, test := range map[string]struct {
		spec   network.ContainerSpec
		change func(*network.Container)
		at     any    // what is at path
		exit   string // what the monitor has written
		want   string // status, exit status, whether it has its interface; "forgotten"
	}{
		"created, and never started": {want: "forgotten"},
		"created, by a command that still runs": {
			change: func(c *network.Container) { c.Monitor, c.MonitorStart = pid, start },
			want:   "created 0 false",
		},
		"created, by a command whose number another process has": {
			change: func(c *network.Container) { c.Monitor, c.MonitorStart = pid, start+1 },
			want:   "forgotten",
		},
		"running": {change: process(start), want: "running 0 true"},
		"running on the host's network": {
			spec:   network.ContainerSpec{NetworkMode: network.HostName},
			change: process(start),
			want:   "running 0 false",
		},
		"ended, and its number is another process's": {change: process(start + 1), want: "exited 137 false"},
		"ended, and its monitor has written how":     {change: process(start + 1), exit: "3\n", want: "exited 3 false"},
		"ended, and what its monitor has written is no number": {
			change: process(start + 1),
			exit:   "three",
			want:   "exited 137 false",
		},
		"ended, and was to be removed": {
			spec:   network.ContainerSpec{AutoRemove: true},
			change: process(start + 1),
			exit:   "3",
			want:   "forgotten",
		},
		"ended before": {
			change: func(c *network.Container) { c.Status, c.ExitCode = network.Exited, 5 },
			exit:   "6",
			want:   "exited 5 false",
		},
		"attached, and its process has ended": {
			spec:   network.ContainerSpec{Attached: true},
			change: process(start + 1),
			want:   "forgotten",
		},
		"attached by who still runs, and the descriptor is lost": {
			spec:   network.ContainerSpec{Attached: true},
			change: running(func(c *network.Container) { c.Holder, c.HolderStart = pid, start }),
			want:   "running 0 false",
		},
		"attached by who has ended": {
			spec:   network.ContainerSpec{Attached: true},
			change: running(func(c *network.Container) { c.Holder, c.HolderStart = pid, start+1 }),
			want:   "forgotten",
		},
		"attached at a path": {
			spec:   network.ContainerSpec{Attached: true, NetNS: path},
			change: running(func(*network.Container) {}),
			at:     here,
			want:   "running 0 true",
		},
		"attached at a path that is gone": {
			spec:   network.ContainerSpec{Attached: true, NetNS: path},
			change: running(func(*network.Container) {}),
			want:   "forgotten",
		},
		"attached at a path that cannot be looked at": {
			spec:   network.ContainerSpec{Attached: true, NetNS: path},
			change: running(func(*network.Container) {}),
			at:     os.ErrPermission,
			want:   "running 0 true",
		},
		"attached by a descriptor, and the path leads there": {
			spec:   network.ContainerSpec{Attached: true, NetNS: path, NetNSID: network.NamespaceID(here)},
			change: running(func(*network.Container) {}),
			at:     here,
			want:   "running 0 true",
		},
		"attached by a descriptor, and the path leads elsewhere": {
			spec:   network.ContainerSpec{Attached: true, NetNS: path, NetNSID: network.NamespaceID(here)},
			change: running(func(*network.Container) {}),
			at:     there,
			want:   "forgotten",
		},
		"attached by a descriptor, and the path cannot be looked at": {
			spec:   network.ContainerSpec{Attached: true, NetNS: path, NetNSID: network.NamespaceID(here)},
			change: running(func(*network.Container) {}),
			at:     os.ErrPermission,
			want:   "forgotten",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, f := newFakeDaemon(t)
			f.paths = map[string]any{path: test.at}
			test.spec.Name = "c1"
			c := stored(t, d, test.spec, test.change)
			if test.exit != "" {
				writeExit(t, d, c, test.exit)
			}
			d.restore(takeReceived(&Config{}))
			got := "forgotten"
			if now, err := d.Container(c.ID); err == nil {
				s := d.runtime(c.ID)
				s.mu.Lock()
				got = fmt.Sprintf("%s %d %v", now.Status, now.ExitCode, len(s.attachments) > 0)
				s.mu.Unlock()
			}
			if got != test.want {
				t.Errorf("it is %q, want %q", got, test.want)
			}
			if asked, attached := f.asked(), strings.HasSuffix(test.want, "true"); (asked != "") != attached {
				t.Errorf("in its sandbox: %q", asked)
			}
			_, err := os.Stat(d.containerDir(c.ID))
			if (err == nil) != (test.exit != "" && got != "forgotten") {
				t.Errorf("its files: %v", err)
			}
		})
	}
}

// writeExit writes a container's exit status where its monitor does.
func writeExit(t *testing.T, d *Daemon, c *network.Container, text string) {
	t.Helper()
	if err := os.MkdirAll(d.containerDir(c.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.containerDir(c.ID), "exit"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRestoredContainersHaveTheirAddressesAndNames has three containers go on, of which one sandbox refuses: the two
// others are found by their names at the addresses from before.
func TestRestoredContainersHaveTheirAddressesAndNames(t *testing.T) {
	d, f := newFakeDaemon(t)
	n, _, err := d.CreateNetwork(t.Context(), network.NetworkSpec{Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	addrs, ids := map[string]netip.Addr{}, map[string]string{}
	for _, name := range []string{"aa", "bb", "cc"} {
		c := stored(t, d, network.ContainerSpec{Name: name, NetworkMode: "one"}, livingOn(t))
		addrs[name], ids[name] = c.Endpoints[0].IPv4.Addr(), c.ID
	}
	gone := stored(t, d, network.ContainerSpec{Name: "gone", NetworkMode: "one"}, func(c *network.Container) {
		c.Status, c.Pid, c.PidStart = network.Running, os.Getpid(), 1
	})
	f.fail = errors.New("the sandbox cannot be entered") // once
	d.restore(takeReceived(&Config{}))
	without := 0
	for name, addr := range addrs {
		c, err := d.Container(name)
		if err != nil || c.Status != network.Running || c.Endpoints[0].IPv4.Addr() != addr {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
		owner, _ := d.bridge(n.ID).Owner(addr)
		if owner != ids[name] {
			without++
		}
		if got, _, _ := d.names.LookupName(ids["aa"], name); !slices.Equal(got, []netip.Addr{addr}) {
			t.Errorf("%s is found at %v, want %s", name, got, addr)
		}
	}
	if without != 1 {
		t.Errorf("%d containers are without their network, want the one whose sandbox refused", without)
	}
	if got, _, found := d.names.LookupName(ids["aa"], "gone"); found {
		t.Errorf("a container that has ended is found at %v", got)
	}
	if want := []string{"network create", "container die", "network disconnect"}; !slices.Equal(actions(t, d), want) {
		t.Errorf("events: %v, want %v", actions(t, d), want)
	}
	if c, err := d.Container(gone.ID); err != nil || c.Endpoints[0].IPv4.IsValid() {
		t.Errorf("the address of one that has ended is kept: %+v, %v", c, err)
	}
}

// TestRestoredPorts has a container go on whose host port was chosen, or given, and is free or taken now.
func TestRestoredPorts(t *testing.T) {
	lo := netip.MustParseAddr("127.83.1.7") // no other program binds ports there
	for name, test := range map[string]struct{ given, taken bool }{
		"chosen, and taken": {false, true},
		"given, and taken":  {true, true},
		"given, and free":   {true, false},
		"chosen, and free":  {false, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", netip.AddrPortFrom(lo, 0).String())
			if err != nil {
				t.Fatal(err)
			}
			host := uint16(l.Addr().(*net.TCPAddr).Port)
			if test.taken {
				defer l.Close()
			} else if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			d, _ := newFakeDaemon(t)
			want := network.PortBinding{HostIP: lo, Port: 80, End: 80, Proto: network.TCP}
			if test.given {
				want.HostPort, want.HostEnd = host, host
			}
			bound := network.PortBinding{
				HostIP:   lo,
				HostPort: host,
				HostEnd:  host,
				Port:     80,
				End:      80,
				Proto:    network.TCP,
			}
			c := stored(t, d, network.ContainerSpec{Name: "c1", Ports: []network.PortBinding{want}}, livingOn(t))
			if err := d.model.SetBound(c.ID, []network.PortBinding{bound}); err != nil {
				t.Fatal(err)
			}
			d.restore(takeReceived(&Config{}))
			list, err := d.Published("c1")
			if err != nil {
				t.Fatal(err)
			}
			c, _ = d.Container(c.ID)
			switch {
			case test.given && test.taken:
				if len(list) != 0 || len(c.Bound) != 0 {
					t.Errorf("a port of another program's is published: %v, stored as %v", list, c.Bound)
				}
				if len(d.runtime(c.ID).attachments) != 1 {
					t.Error("it has lost its network too")
				}
			case len(list) != 1 || (list[0].Host.Port() == host) == test.taken || list[0].Port != 80:
				t.Errorf("%v is published, and before it was %d", list, host)
			case len(c.Bound) != 1 || c.Bound[0] != list[0].Binding():
				t.Errorf("%v is stored, and %v published", c.Bound, list)
			}
			if len(c.Ports) != 1 || c.Ports[0] != want {
				t.Errorf("what was asked for has become %v", c.Ports)
			}
		})
	}
}

// TestFilesOfContainersThatAreGone has directories of a container, of none, and of what is only an abbreviation.
func TestFilesOfContainersThatAreGone(t *testing.T) {
	d, _ := newFakeDaemon(t)
	d.removeOrphanFiles() // there are none
	c := stored(t, d, network.ContainerSpec{Name: "c1"}, nil)
	want := map[string]bool{c.ID: true, strings.Repeat("0", 64): false, c.ID[:12]: false, "c1": false}
	for name := range want {
		if err := os.MkdirAll(filepath.Join(d.containerDir(name), "deep"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d.removeOrphanFiles()
	for name, stays := range want {
		if _, err := os.Stat(d.containerDir(name)); (err == nil) != stays {
			t.Errorf("directory %s: %v", name, err)
		}
	}
}

// TestReceivedDescriptorsThatAreNoNamespaces has the daemon before hand over something else for an attached container,
// whose user namespace is then still looked for by its path.
func TestReceivedDescriptorsThatAreNoNamespaces(t *testing.T) {
	d, _ := newFakeDaemon(t)
	c := stored(t, d, network.ContainerSpec{Name: "c1", Attached: true, NetNSID: network.NamespaceID{Ino: 1}},
		func(c *network.Container) { c.Status, c.UserNS = network.Running, "/run/userns" })
	set := &handover.Set{}
	fd := nowhere(t)
	set.Put(netnsID(c.ID), fd)
	r := takeReceived(&Config{Received: set})
	d.takeNamespaces([]*network.Container{c}, r)
	if at := d.target(c); at.File != nil || at.UserNS != "/run/userns" {
		t.Errorf("its namespaces are looked for at %+v", at)
	}
	if r.Count(handover.NetNS) != 0 || isOpen(fd) {
		t.Error("the descriptor is still there")
	}
}

// TestKeptNamespace replaces the descriptor of a container's namespace: a copy of the caller's is kept, instead of the
// path, and the one before is closed.
func TestKeptNamespace(t *testing.T) {
	d, _ := newFakeDaemon(t)
	c := stored(t, d, network.ContainerSpec{Name: "c1", Attached: true}, func(c *network.Container) {
		c.UserNS = "/run/userns"
	})
	s := d.runtime(c.ID)
	var kept [2]*os.File
	for i := range kept {
		f := os.NewFile(uintptr(nowhere(t)), "netns")
		if err := d.keepNamespace(s, f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		at := d.target(c)
		if at.File == nil || !isOpen(int(at.File.Fd())) || at.UserNS != "" {
			t.Fatalf("its namespaces are at %+v", at)
		}
		kept[i] = at.File
	}
	s.dropNamespace()
	for i, f := range kept {
		if f.Close() == nil {
			t.Errorf("descriptor %d was open at the end", i)
		}
	}
	if at := d.target(c); at.File != nil || at.UserNS != "/run/userns" {
		t.Errorf("its namespaces are at %+v", at)
	}
}
