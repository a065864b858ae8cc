package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/sandbox/entry"
)

// namespaces are those that a sandbox may have of its own, by their names in /proc/PID/ns, in the order in which they
// are entered: the user namespace first, since its privileges open the others.
var namespaces = [...]string{"user", "mnt", "uts", "ipc", "net", "cgroup", "pid"}

// execRequest is what the entry of one more command reads from its control socket.
type execRequest struct {
	Spec  Spec
	Root  int  // descriptor of the sandbox's root directory
	OneID bool // the sandbox has no id but root's, and a user was asked for
}

// Exec starts one more command in all the namespaces of a running sandbox. It needs no Proceed.
//
// The process that enters is not dumpable before it does, and the next program that it executes is the command: at no
// time can the sandbox's root trace it, or reach the host by it (CVE-2016-9962).
func Exec(ctx context.Context, t Target, spec Spec) (*Process, error) {
	if len(spec.Command) == 0 {
		return nil, &ExitError{125, "no command specified"}
	}
	if spec.WorkingDir == "" {
		spec.WorkingDir = "/"
	}
	inside, root, err := openAll(t.Pid)
	defer closeAll(append(inside, root))
	if err != nil {
		return nil, err
	}
	r := role{name: roleExec, namespaces: inside, cloneFlags: unix.CLONE_PARENT, files: []*os.File{root}}
	p, err := startRole(r, spec)
	if err != nil {
		return nil, err
	}
	q := execRequest{Spec: spec, Root: entry.FirstNamespaceFD + len(inside)}
	q.OneID = spec.User != "" && mappedIDs(fmt.Sprintf("/proc/%d/uid_map", t.Pid)) == 1
	if err := p.request(q); err != nil {
		p.Kill()
		return nil, err
	}
	end, files, err := p.receive()
	if err == nil && end.SetUp { // with a terminal
		if err := p.takeFiles(nil, files); err != nil {
			p.Kill()
			return nil, err
		}
		end, _, err = p.receive()
	}
	if err == nil { // the descriptor is closed when the command runs
		_, _ = p.Wait()
		return nil, &ExitError{end.Code, end.Error}
	}
	_ = p.control.Close()
	p.runs()
	return p, ctx.Err()
}

// openAll opens the namespaces of a process that are not this one's as well, and its root directory.
func openAll(pid int) (inside []*os.File, root *os.File, err error) {
	for _, kind := range namespaces {
		f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/" + kind)
		if err != nil {
			return inside, nil, fmt.Errorf("namespaces of process %d: %w", pid, err)
		}
		// What is shared may not be entered again: the network in host mode, and whatever a process that was attached
		// has not made for itself.
		if same, err := sameNamespace(f, "/proc/self/ns/"+kind); err != nil || same {
			_ = f.Close()
			continue
		}
		inside = append(inside, f)
	}
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return inside, nil, fmt.Errorf("root directory of process %d: %w", pid, err)
	}
	return inside, os.NewFile(uintptr(fd), "root"), nil
}

// runExec becomes a command. The process is in the sandbox's namespaces; nothing else of it is yet.
func runExec() error {
	c, err := unixConn(controlFD)
	if err != nil {
		return fmt.Errorf("exec without a control socket: %w", err)
	}
	failed := func(err error) error {
		e := &ExitError{Code: 125}
		if !errors.As(err, &e) {
			e = &ExitError{125, err.Error()}
		}
		sendReply(c, startReply{Error: e.Msg, Code: e.Code})
		os.Exit(e.Code)
		return nil
	}
	if err := entry.Result(); err != nil {
		return failed(err)
	}
	buf := make([]byte, maxMessage)
	n, err := c.Read(buf)
	if err != nil || n == 0 {
		return errors.New("nothing to run: the command that entered this sandbox is gone")
	}
	var q execRequest
	if err := json.Unmarshal(buf[:n], &q); err != nil {
		return failed(err)
	}
	return failed(becomeCommand(c, q))
}

// becomeCommand returns what is wrong, or not at all.
func becomeCommand(c *net.UnixConn, q execRequest) error {
	if err := changeRoot(q.Root); err != nil {
		return err
	}
	if err := becomeRoot(); err != nil {
		return err
	}
	if q.Spec.terminalInside() {
		master, slave, err := openTerminal()
		if err != nil {
			return err
		}
		if err := (setupFiles{master: master, console: slave}).handOut(c); err != nil {
			return err
		}
	}
	runtime.LockOSThread() // the limits are this thread's
	if !q.OneID {
		if err := q.Spec.Limits.apply(); err != nil {
			return err
		}
	}
	uid, gid := 0, 0
	if q.Spec.User != "" {
		var err error
		if uid, gid, err = userIDs(q.Spec.User); err != nil {
			return &ExitError{125, err.Error()}
		}
		if !q.OneID {
			if err := becomeUser(uid, gid); err != nil {
				return &ExitError{125, fmt.Sprintf("user %s: %v", q.Spec.User, err)}
			}
		}
	}
	if err := enterDir(q.Spec.WorkingDir); err != nil {
		return err
	}
	path, err := lookPath(q.Spec.Command[0], q.Spec.Env)
	if err != nil {
		return err
	}
	if _, err := syscall.Setsid(); err != nil {
		return os.NewSyscallError("setsid", err)
	}
	if q.Spec.TTY {
		if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
			return os.NewSyscallError("ioctl TIOCSCTTY", err)
		}
	}
	if q.OneID {
		return becomeOtherID(q, path, uid, gid)
	}
	err = syscall.Exec(path, q.Spec.Command, q.Spec.Env)
	return &ExitError{126, fmt.Sprintf("exec: %q: %v", q.Spec.Command[0], err)}
}

// becomeOtherID becomes a command in a user namespace below the sandbox's, which gives its only id another number. It
// is made by unshare(1) of the sandbox, since this process has several threads.
func becomeOtherID(q execRequest, path string, uid, gid int) error {
	tool, err := lookPath("unshare", q.Spec.Env)
	if err != nil {
		return fmt.Errorf("user %s: %w; it is in util-linux", q.Spec.User, err)
	}
	request, err := userCommand{path, q.Spec.Command, q.Spec.Env, q.Spec.Limits}.file()
	if err != nil {
		return err
	}
	if err := passAt(request, controlFD); err != nil {
		return err
	}
	program := q.Root + 1 // role.command puts it behind the files
	if _, err := unix.FcntlInt(uintptr(program), unix.F_SETFD, 0); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	err = syscall.Exec(tool, []string{
		"unshare", "--user", "--keep-caps", fmt.Sprint("--map-user=", uid), fmt.Sprint("--map-group=", gid), "--",
		fmt.Sprint("/proc/self/fd/", program), roleUser, entry.Steps{}.Argument(),
	}, ownEnv)
	return &ExitError{126, fmt.Sprintf("exec: %q: %v", tool, err)}
}

// changeRoot makes the directory at fd the root, where it is another: that of a process that was attached after
// chroot(2).
func changeRoot(fd int) error {
	var want, have unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &want), unix.Stat("/", &have)); err != nil {
		return fmt.Errorf("root directory: %w", err)
	}
	if want.Dev == have.Dev && want.Ino == have.Ino {
		return nil
	}
	if err := unix.Fchdir(fd); err != nil {
		return fmt.Errorf("root directory: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("root directory: %w", err)
	}
	return nil
}

// enterDir makes dir the working directory, which has to be below the root: a container's file system may hold a link
// that leads to a directory of the host's by a descriptor (CVE-2024-21626).
func enterDir(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return &ExitError{126, fmt.Sprintf("working directory: %v", err)}
	}
	buf := make([]byte, unix.PathMax)
	// getcwd(2): a directory that cannot be reached from the root is "(unreachable)" and its path.
	if n, err := unix.Getcwd(buf); err != nil || n == 0 || buf[0] != '/' {
		return &ExitError{126, fmt.Sprintf("working directory: %s is outside of the root file system", dir)}
	}
	return nil
}
