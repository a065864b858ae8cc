package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Values of Spec.UserNS.
const (
	UserNSAuto  = "auto"  // the subordinate ids where the sandbox has a root file system of its own and they can be had
	UserNSHost  = "host"  // root in the sandbox is the caller, and there are no other ids
	UserNSRange = "range" // the subordinate ids, or an error; root in the sandbox is the first of them
)

// maxIDs is how many ids a sandbox has at most: programs count on 65536 (nobody is 65534, and systemd's dynamic users
// end below).
const maxIDs = 65536

// idMaps are the ids of a sandbox's user namespace.
type idMaps struct {
	uids, gids []syscall.SysProcIDMap
	// subordinate: there are ids that are not the caller's, which newuidmap(1) and newgidmap(1) have to map.
	subordinate bool
}

// callersID maps root in the sandbox to the caller, and nothing else.
func callersID() idMaps {
	return idMaps{
		uids: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		gids: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
}

// mapsFor chooses the ids for a spec. Under UserNSAuto:
//
//   - A sandbox with the caller's files is for working with them, so root in it is the caller.
//   - So is root where the root file system belongs to the caller, since it could not write there otherwise; the other
//     ids are subordinate, as in rootless Podman.
//   - Else root is the first subordinate id, which no user outside has.
func mapsFor(spec Spec) (idMaps, error) {
	mode := spec.UserNS
	if mode == "" {
		mode = UserNSAuto
	}
	if mode == UserNSHost || mode == UserNSAuto && spec.Rootfs == "" {
		return callersID(), nil
	}
	uids, gids, err := subordinateIDs()
	if err != nil {
		if mode == UserNSAuto {
			return callersID(), nil
		}
		return idMaps{}, err
	}
	m := idMaps{subordinate: true}
	if mode == UserNSAuto {
		var st unix.Stat_t
		if err := unix.Stat(spec.Rootfs, &st); err == nil && int(st.Uid) == os.Geteuid() {
			m.uids, m.gids = callersID().uids, callersID().gids
		}
	}
	m.uids, m.gids = appendIDs(m.uids, uids), appendIDs(m.gids, gids)
	return m, nil
}

// An idRange is a line of subuid(5) or subgid(5).
type idRange struct{ start, count int }

// appendIDs maps further ids of a sandbox to ranges, in their order.
func appendIDs(maps []syscall.SysProcIDMap, ranges []idRange) []syscall.SysProcIDMap {
	next := 0
	for _, m := range maps {
		next += m.Size
	}
	for _, r := range ranges {
		if n := min(r.count, maxIDs-next); n > 0 {
			maps = append(maps, syscall.SysProcIDMap{ContainerID: next, HostID: r.start, Size: n})
			next += n
		}
	}
	return maps
}

// subordinateIDs are the ids that this user may use beside its own. The error says what is missing.
func subordinateIDs() (uids, gids []idRange, err error) {
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, nil, fmt.Errorf("%s is missing: install uidmap (shadow-utils)", tool)
		}
	}
	id := strconv.Itoa(os.Getuid())
	name := id
	if u, err := user.LookupId(id); err == nil {
		name = u.Username
	}
	for _, f := range []struct {
		path string
		to   *[]idRange
	}{{"/etc/subuid", &uids}, {"/etc/subgid", &gids}} {
		file, err := os.Open(f.path)
		if err == nil {
			*f.to, err = readRanges(file, name, id)
			_ = file.Close()
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, nil, err
		}
		if len(*f.to) == 0 {
			return nil, nil, fmt.Errorf(
				"%s has no ids for %s; as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s",
				f.path, name, name)
		}
	}
	return uids, gids, nil
}

// readRanges finds a user's lines, by name or number.
func readRanges(r io.Reader, name, id string) (ranges []idRange, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(fields) != 3 || fields[0] != name && fields[0] != id {
			continue
		}
		start, err1 := strconv.ParseUint(fields[1], 10, 32)
		count, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err1 != nil || err2 != nil || count == 0 {
			continue
		}
		ranges = append(ranges, idRange{int(start), int(count)})
	}
	return ranges, lines.Err()
}

// mayTrace says whether children of this process can be stopped by ptrace(2) (Documentation/admin-guide/LSM/Yama.rst).
func mayTrace() bool {
	scope, err := strconv.Atoi(sysctl("kernel.yama.ptrace_scope"))
	return err != nil || scope < 2
}

// errIDs says that there are subordinate ids, and that they cannot be mapped.
var errIDs = errors.New("subordinate ids cannot be mapped")

// install maps the ids of a child that has made a user namespace and waits. traced: the child is stopped at its first
// instruction, while it is still dumpable and /proc/PID/uid_map therefore the user's, as newuidmap needs it to be where
// it has a file capability instead of being set-user-id root; the calling thread has started it.
func (m idMaps) install(pid int, traced bool) error {
	if traced {
		for {
			if _, err := syscall.Wait4(pid, nil, syscall.WALL, nil); !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		defer func() { _ = syscall.PtraceDetach(pid) }()
	}
	for tool, maps := range map[string][]syscall.SysProcIDMap{"newuidmap": m.uids, "newgidmap": m.gids} {
		args := []string{strconv.Itoa(pid)}
		for _, r := range maps {
			args = append(args, strconv.Itoa(r.ContainerID), strconv.Itoa(r.HostID), strconv.Itoa(r.Size))
		}
		if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s: %w: %s", errIDs, tool, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// allCapabilities are those that the kernel knows. The init of a sandbox with subordinate ids needs them as ambient
// ones, since it is nobody in its user namespace when it is executed, before the ids are mapped.
func allCapabilities() []uintptr {
	last, err := strconv.Atoi(sysctl("kernel.cap_last_cap"))
	if err != nil {
		last = unix.CAP_LAST_CAP
	}
	var caps []uintptr
	for c := range last + 1 {
		caps = append(caps, uintptr(c))
	}
	return caps
}

// mappedIDs is how many ids a process's user namespace has, from 0 on without a gap, by its file in /proc.
func mappedIDs(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 1
	}
	sizes := map[int]int{}
	for line := range strings.Lines(string(text)) {
		var inside, outside, size int
		if _, err := fmt.Sscan(line, &inside, &outside, &size); err == nil {
			sizes[inside] = size
		}
	}
	n := 0
	for sizes[n] > 0 {
		n += sizes[n]
	}
	return max(n, 1)
}

// overflowID is what an id that the user namespace does not map looks like (kernel.overflowuid, by default).
const overflowID = 65534

// becomeRoot makes this process root in its user namespace where it has an id there that is not mapped: that of the
// caller, who made the namespace.
func becomeRoot() error {
	if os.Geteuid() != overflowID {
		return nil
	}
	return becomeUser(0, 0)
}

// becomeUser changes the ids of this process, for good.
func becomeUser(uid, gid int) error {
	if err := syscall.Setgroups(nil); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return os.NewSyscallError("setresgid", err)
	}
	return os.NewSyscallError("setresuid", syscall.Setresuid(uid, uid, uid))
}
