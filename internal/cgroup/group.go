package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits are what a container may use; 0 of each: no limit.
type Limits struct {
	Memory   int64 // bytes
	Swap     int64 // bytes beside Memory; negative: no limit. It counts where Memory does
	NanoCPUs int64 // processors, in units of 10⁻⁹
	Pids     int64 // processes and threads
}

// Period of cpu.max, in microseconds: the kernel's default, and Docker's. A quota is 1 ms at least
// (kernel/sched/core.c).
const (
	cpuPeriod   = 100_000
	cpuLeast    = 1_000
	nanoPerCPU  = 1_000_000_000
	noLimitText = "max"
)

// Group is a container's cgroup.
type Group struct {
	dir string
}

// Make makes the cgroup of a container, which a process may then be started in. One of an earlier run, whose removal
// was not seen to, is used again.
func (t *Tree) Make(id string, l Limits) (*Group, error) {
	g := &Group{filepath.Join(t.root, containerPrefix+id)}
	for _, dir := range []string{g.dir, g.Inside()} {
		if err := t.mkdir(dir); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("cgroup of the container: %w", err)
		}
	}
	err := g.bound()
	if err == nil {
		err = g.Set(l)
	}
	if err != nil {
		_ = errors.Join(os.Remove(g.Inside()), os.Remove(g.dir)) // what it was made for has failed already
		return nil, err
	}
	return g, nil
}

// Cgroups that a container may make in its own, as systemd does: each costs the kernel memory, and its removal time.
const (
	maxDepth       = 32
	maxDescendants = 4096
)

// bound writes these.
func (g *Group) bound() error {
	for file, n := range map[string]int{"cgroup.max.depth": maxDepth, "cgroup.max.descendants": maxDescendants} {
		err := writeFile(filepath.Join(g.dir, file), strconv.Itoa(n))
		if err != nil && !errors.Is(err, os.ErrNotExist) { // Linux 4.14
			return fmt.Errorf("cgroup of the container: %w", err)
		}
	}
	return nil
}

// Missing are the controllers that the limits need and the tree does not have.
func (t *Tree) Missing(l Limits) []string {
	var list []string
	for _, c := range []struct {
		name   string
		wanted bool
	}{{Memory, l.Memory != 0}, {CPU, l.NanoCPUs != 0}, {Pids, l.Pids != 0}} {
		if c.wanted && !slices.Contains(t.controllers, c.name) {
			list = append(list, c.name)
		}
	}
	return list
}

// Open is the group that Make has made, by its Dir, also after a daemon's restart.
func Open(dir string) (*Group, error) {
	if _, ok := ContainerOf(dir); !ok || !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("%s is no container's cgroup", dir)
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	if !unified(dir) {
		return nil, fmt.Errorf("%s is no cgroup", dir)
	}
	return &Group{dir: dir}, nil
}

// ContainerOf is the id of the container whose group is at dir, by its name.
func ContainerOf(dir string) (id string, ok bool) {
	return strings.CutPrefix(filepath.Base(dir), containerPrefix)
}

// Dir is the directory with the limits.
func (g *Group) Dir() string { return g.dir }

// Inside is the directory of the cgroup that processes are started in.
func (g *Group) Inside() string { return filepath.Join(g.dir, insideName) }

// InsideOf is Inside of a group by its Dir.
func InsideOf(dir string) string { return filepath.Join(dir, insideName) }

// Set changes the limits. Where a controller is missing that only limits of 0 would need, that is no error.
func (g *Group) Set(l Limits) error {
	amount := func(n int64) string {
		if n <= 0 {
			return noLimitText
		}
		return strconv.FormatInt(n, 10)
	}
	swap := amount(l.Swap)
	if l.Memory > 0 && l.Swap == 0 {
		swap = "0"
	}
	for _, w := range []struct {
		file, text string
		wanted     bool
	}{
		{"memory.swap.max", swap, false}, // it is not there in a kernel without swap
		{"memory.max", amount(l.Memory), l.Memory > 0},
		{"cpu.max", quota(l.NanoCPUs), l.NanoCPUs > 0},
		{"pids.max", amount(l.Pids), l.Pids > 0},
	} {
		err := writeFile(filepath.Join(g.dir, w.file), w.text)
		if errors.Is(err, os.ErrNotExist) && !w.wanted {
			continue
		}
		if err != nil {
			return fmt.Errorf("limit of the container: %w", err)
		}
	}
	return nil
}

// quota is a text for cpu.max.
func quota(nano int64) string {
	if nano <= 0 {
		return fmt.Sprintf("%s %d", noLimitText, cpuPeriod)
	}
	return fmt.Sprintf("%d %d", max(nano/(nanoPerCPU/cpuPeriod), cpuLeast), cpuPeriod)
}

// OOMKills is how many processes of the group the kernel has killed since they had no memory left.
func (g *Group) OOMKills() (uint64, error) {
	events, err := readPairs(g.EventsFile())
	return events["oom_kill"], err
}

// EventsFile changes whenever OOMKills does, which inotify(7) tells.
func (g *Group) EventsFile() string { return filepath.Join(g.dir, "memory.events") }

// removePoll is how often a group is looked at whose processes are about to end.
const removePoll = 5 * time.Millisecond

// Remove kills what is left in the group and removes it. It waits for the end of its processes until ctx ends.
func (g *Group) Remove(ctx context.Context) error {
	_ = writeFile(filepath.Join(g.dir, "cgroup.kill"), "1") // Linux 5.14; its first process has ended before
	for {
		err := removeAll(g.dir)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cgroup of the container: %w", err)
		case <-time.After(removePoll):
		}
	}
}

// removeAll removes a cgroup with those in it, of which the container may have made some: by descriptors, as the path
// of one may be longer than a path can be. Files go with their cgroup.
func removeAll(dir string) error { return removeAt(unix.AT_FDCWD, dir) }

func removeAt(parent int, name string) error {
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeAt(fd, e.Name()); err != nil {
				return err
			}
		}
	}
	if err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, os.ErrNotExist) {
		return &os.PathError{Op: "rmdir", Path: name, Err: err}
	}
	return nil
}

// Sweep removes the groups of containers that keep says nothing of: those of a daemon that was killed.
func (t *Tree) Sweep(ctx context.Context, keep func(id string) bool) error {
	entries, err := os.ReadDir(t.root)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		id, ok := strings.CutPrefix(e.Name(), containerPrefix)
		if ok && e.IsDir() && !keep(id) {
			errs = append(errs, (&Group{filepath.Join(t.root, e.Name())}).Remove(ctx))
		}
	}
	return errors.Join(errs...)
}
