package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Names of cgroups below the delegated one. daemonName is also that of DelegateSubgroup= in the systemd unit.
const (
	daemonName      = "daemon"
	containerPrefix = "container-"
	insideName      = "inside"
)

// Controllers that limits need. A tree may have some of them only.
const (
	Memory = "memory"
	CPU    = "cpu"
	Pids   = "pids"
)

// Unavailable says why this process can limit nothing, and what to do about it.
type Unavailable struct {
	Reason string // what is so, as part of a sentence
	Fix    string // what to do, as part of a sentence
}

// Error is reason and advice.
func (u *Unavailable) Error() string { return u.Reason + "; " + u.Fix }

// What to do where nothing was delegated.
const (
	fixDelegate = "run the daemon as the user service (systemctl --user enable --now usernet.socket, systemd 254 or " +
		"newer), or as " + transient
	transient = "systemd-run --user -p Delegate=yes -p DelegateSubgroup=" + daemonName +
		" -p KillMode=process usernet serve"
	fixNone     = "mount them, as root: mount -t cgroup2 none "
	fixVersion1 = "boot with the unified hierarchy (systemd.unified_cgroup_hierarchy=1 on the kernel's command line)"
)

// NoDaemon says why there are no limits where no daemon answers, and what to do.
func NoDaemon() *Unavailable {
	if !unified(mountPoint) {
		return notUnified(mountPoint)
	}
	return &Unavailable{"only a daemon with a cgroup of its own can set them, and none answers", fixDelegate}
}

// notUnified says what is at mount where it is no cgroup file system of version 2.
func notUnified(mount string) *Unavailable {
	if !version1(mount) {
		return &Unavailable{"no cgroups are mounted at " + mount, fixNone + mount}
	}
	return &Unavailable{"this machine has cgroups of version 1 at " + mount + ", which cannot be delegated safely",
		fixVersion1}
}

// mountPoint is where cgroups are mounted.
const mountPoint = "/sys/fs/cgroup"

// Tree is a cgroup that was delegated, with those of containers in it.
type Tree struct {
	root        string // its directory
	controllers []string
	mkdir       func(path string) error
}

// machine is what Take looks at, which tests replace.
type machine struct {
	self    string                      // content of /proc/self/cgroup
	mount   string                      // where cgroups are mounted
	marked  func(path string) bool      // systemd says that it has delegated the cgroup
	mkdir   func(path string) error     // the kernel makes files in a new directory
	write   func(path, s string) error  // to a file of a cgroup
	allowed func(path string) (ok bool) // this process may write there
}

// Take makes the cgroup that was delegated to this process ready: the process moves to a cgroup of its own below it,
// and what it starts later is there too, so call it first. The error is an *Unavailable, and nothing is changed then.
func Take() (*Tree, error) {
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, &Unavailable{err.Error(), "mount /proc"}
	}
	return take(machine{
		self:  string(self),
		mount: mountPoint,
		marked: func(path string) bool {
			mark := make([]byte, 8)
			n, err := unix.Getxattr(path, "user.delegate", mark) // systemd.resource-control(5), Delegate=
			return err == nil && string(mark[:n]) == "1"
		},
		mkdir:   func(path string) error { return os.Mkdir(path, 0o755) },
		write:   writeFile,
		allowed: func(path string) bool { return unix.Access(path, unix.W_OK) == nil },
	})
}

func take(m machine) (*Tree, error) {
	own, err := m.own()
	if err != nil {
		return nil, err
	}
	root, moved := own, false
	if filepath.Base(own) == daemonName {
		root, moved = filepath.Dir(own), true
	}
	if err := m.checkDelegated(root, moved); err != nil {
		return nil, err
	}
	t := &Tree{root: root, mkdir: m.mkdir}
	offered := words(filepath.Join(root, "cgroup.controllers"))
	for _, c := range []string{Memory, CPU, Pids} {
		if slices.Contains(offered, c) {
			t.controllers = append(t.controllers, c)
		}
	}
	if len(t.controllers) == 0 {
		return nil, &Unavailable{fmt.Sprintf("cgroup %s has none of the controllers memory, cpu and pids", root),
			"have them enabled above it: Delegate=memory cpu pids in user@.service, or cgroup.subtree_control"}
	}
	if !moved {
		daemon := filepath.Join(root, daemonName)
		if err := m.mkdir(daemon); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, &Unavailable{fmt.Sprintf("no cgroup can be made in %s: %v", root, err), fixDelegate}
		}
		if err := m.write(filepath.Join(daemon, "cgroup.procs"), strconv.Itoa(os.Getpid())); err != nil {
			return nil, &Unavailable{fmt.Sprintf("the daemon cannot move to cgroup %s: %v", daemon, err), fixDelegate}
		}
	}
	if err := m.enable(t); err != nil {
		if !moved { // back to where the process was
			_ = m.write(filepath.Join(root, "cgroup.procs"), strconv.Itoa(os.Getpid()))
			_ = os.Remove(filepath.Join(root, daemonName))
		}
		return nil, err
	}
	return t, nil
}

// enable has the cgroups below the delegated one have its controllers.
func (m machine) enable(t *Tree) error {
	for _, c := range t.controllers {
		err := m.write(filepath.Join(t.root, "cgroup.subtree_control"), "+"+c)
		if errors.Is(err, unix.EBUSY) { // cgroups(7), "no internal processes"
			others := strings.Join(words(filepath.Join(t.root, "cgroup.procs")), " ")
			return &Unavailable{fmt.Sprintf("cgroup %s has other processes than the daemon (%s)", t.root, others),
				"give the daemon one of its own: " + fixDelegate}
		}
		if err != nil {
			return &Unavailable{fmt.Sprintf("controller %s cannot be enabled in cgroup %s: %v", c, t.root, err),
				fixDelegate}
		}
	}
	return nil
}

// own is the directory of this process's cgroup.
func (m machine) own() (string, error) {
	if !unified(m.mount) {
		return "", notUnified(m.mount)
	}
	for line := range strings.Lines(m.self) {
		path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		if strings.HasPrefix(path, "/..") { // cgroup_namespaces(7)
			break
		}
		return filepath.Join(m.mount, path), nil
	}
	return "", &Unavailable{"the daemon's cgroup is not in " + m.mount,
		"mount cgroup2 of the daemon's cgroup namespace there"}
}

// checkDelegated says what is wrong with root as a cgroup that was delegated. moved: the daemon was started below it.
// That tells a delegated unit: systemd starts nothing in a subgroup of one that is not (exec_params_get_cgroup_path in
// its src/core/execute.c). The mark is set by the manager of the system only, and by no user's (cgroup_xattr_apply in
// its src/core/cgroup.c).
func (m machine) checkDelegated(root string, moved bool) error {
	unit := filepath.Base(root)
	inUnit := slices.ContainsFunc(strings.Split(root, "/"), func(part string) bool {
		return slices.Contains([]string{".slice", ".service", ".scope"}, filepath.Ext(part))
	})
	for _, file := range []string{"", "cgroup.procs", "cgroup.subtree_control"} {
		if !m.allowed(filepath.Join(root, file)) {
			return &Unavailable{fmt.Sprintf("the daemon's cgroup %s was not delegated to this user", root), fixDelegate}
		}
	}
	switch {
	case inUnit && !moved && !m.marked(root): // systemd would undo what is changed there (its CGROUP_DELEGATION)
		return &Unavailable{fmt.Sprintf("the daemon's cgroup %s is systemd's, which has not delegated it", root),
			fixDelegate}
	case strings.HasSuffix(unit, ".service") && !moved:
		// Such a service could not be started again while containers run: its process would be put where none may be.
		return &Unavailable{fmt.Sprintf("service %s was started in its own cgroup and not in a subgroup", unit),
			"use systemd 254 or newer with DelegateSubgroup=" + daemonName + " in the unit"}
	}
	return nil
}

// Root is the directory of the cgroup that was delegated.
func (t *Tree) Root() string { return t.root }

// Controllers are those of Memory, CPU and Pids that there are.
func (t *Tree) Controllers() []string { return slices.Clone(t.controllers) }

// unified says whether what is at path is in a cgroup file system of version 2.
func unified(path string) bool { return fsType(path) == unix.CGROUP2_SUPER_MAGIC }

// version1 says whether cgroups of version 1 are mounted at path, or in it as directories for each controller.
func version1(path string) bool {
	if fsType(path) == unix.CGROUP_SUPER_MAGIC {
		return true
	}
	entries, _ := os.ReadDir(path) // none where it is not there
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return fsType(filepath.Join(path, e.Name())) == unix.CGROUP_SUPER_MAGIC
	})
}

// fsType is the kind of the file system that path is in (statfs(2)); 0 where that cannot be told. Tests replace it.
var fsType = func(path string) int64 {
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil {
		return 0
	}
	return int64(fs.Type)
}

// words are those in a file; none where it cannot be read.
func words(name string) []string {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// writeFile writes to a file of a cgroup, which the kernel has made.
func writeFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
