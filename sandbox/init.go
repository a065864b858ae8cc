package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/sandbox/entry"
)

// The init works on its process's first thread. While another thread executes a program (become), the first one has
// ended, and with it /proc/PID/ns is empty (de_thread in fs/exec.c): the daemon could not enter the sandbox then.
func init() {
	if len(os.Args) > 1 && os.Args[1] == roleInit {
		runtime.LockOSThread()
	}
}

// runInit is the first part of a sandbox's PID 1: it sets up the sandbox, hands out what the process that started it
// needs, locks the mounts, and goes on as runCommand.
func runInit() error {
	c, err := unixConn(controlFD)
	if err != nil {
		return fmt.Errorf("init without a control socket: %w", err)
	}
	if err := entry.Result(); err != nil {
		return refuse(c, err)
	}
	var q startRequest
	if err := readStart(c, &q); err != nil {
		return err
	}
	program, err := os.Open("/proc/self/exe") // while there is a /proc
	if err != nil {
		return refuse(c, err)
	}
	mounts, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		return refuse(c, err)
	}
	f, err := setUpNamespaces(q)
	if err != nil {
		return refuse(c, err)
	}
	f.mounts = mounts
	if err := f.handOut(c); err != nil {
		return refuse(c, err)
	}
	control, err := c.File()
	if err != nil {
		return refuse(c, err)
	}
	if !q.Spec.NoProc { // else nothing of the host's is below any mount, and there is no /proc to work with
		if err := lockMounts(); err != nil {
			return refuse(c, err)
		}
	}
	return refuse(c, become(roleCommand, program, control))
}

// runCommand is the second part of a sandbox's PID 1: it starts the command, passes signals on, reaps what is left
// behind, and ends with the command's status.
func runCommand() error {
	c, err := unixConn(controlFD)
	if err != nil {
		return fmt.Errorf("init without a control socket: %w", err)
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	var q startRequest
	if err := readStart(c, &q); err != nil {
		return err
	}
	if err := readStart(c, new(startSignal)); err != nil {
		return err
	}
	pid, err := startCommand(q)
	if err != nil {
		return refuse(c, err)
	}
	sendReply(c, startReply{Ready: true})
	_ = c.Close()
	detachStdio()
	os.Exit(reap(pid, signals))
	return nil
}

// readStart waits for a startRequest, which comes twice since runCommand is another program than runInit, or for the
// startSignal.
func readStart(c *net.UnixConn, q any) error {
	buf := make([]byte, maxMessage)
	n, err := c.Read(buf)
	if err != nil || n == 0 {
		return errors.New("nothing to run: the command that made this sandbox is gone")
	}
	return json.Unmarshal(buf[:n], q)
}

// refuse reports an error, and ends the process with the status that goes with it.
func refuse(c *net.UnixConn, err error) error {
	e := &ExitError{Code: 125}
	if !errors.As(err, &e) {
		e = &ExitError{125, err.Error()}
	}
	sendReply(c, startReply{Error: e.Msg, Code: e.Code})
	os.Exit(e.Code)
	return nil
}

func sendReply(c *net.UnixConn, r startReply) {
	if b, err := json.Marshal(r); err == nil {
		_, _ = c.Write(b)
	}
}

// detachStdio has /dev/null in the place of the standard streams, so that their other ends see the command close them.
func detachStdio() {
	if null, err := os.OpenFile("/dev/null", os.O_RDWR, 0); err == nil {
		for fd := range 3 {
			_ = unix.Dup3(int(null.Fd()), fd, 0)
		}
		_ = null.Close()
	}
}

// startCommand starts the command of a sandbox that is set up.
func startCommand(q startRequest) (pid int, err error) {
	if q.Spec.WorkingDir != "" {
		if err := enterDir(q.Spec.WorkingDir); err != nil {
			return 0, err
		}
	}
	path, err := lookPath(q.Spec.Command[0], q.Spec.Env)
	if err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{
		Env:   q.Spec.Env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: q.Spec.TTY},
	}
	args, limits := q.Spec.Command, q.Spec.Limits
	if q.Spec.User != "" {
		uid, gid, err := userIDs(q.Spec.User)
		if err != nil {
			return 0, &ExitError{125, err.Error()}
		}
		switch n, m := mappedIDs("/proc/self/uid_map"), mappedIDs("/proc/self/gid_map"); {
		case uid < n && gid < m:
			attr.Sys.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: n == 1}
		case n > 1:
			return 0, &ExitError{
				125,
				fmt.Sprintf("user %s: the sandbox has the ids 0 to %d and the groups 0 to %d", q.Spec.User, n-1, m-1),
			}
		default:
			request, err := userCommand{path, args, q.Spec.Env, limits}.file()
			if err != nil {
				return 0, err
			}
			defer request.Close()
			path, args, limits = "/proc/self/exe", []string{"usernet-user", roleUser, entry.Steps{}.Argument()}, nil
			attr.Env, attr.Files = ownEnv, append(attr.Files, request.Fd())
			attr.Sys.Cloneflags, attr.Sys.AmbientCaps = unix.CLONE_NEWUSER, allCapabilities()
			attr.Sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: 0, Size: 1}}
			attr.Sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: 0, Size: 1}}
		}
	}
	// The process has nothing left that leads out of the sandbox. Others of it may see it again: their user namespaces
	// are written in its name.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return 0, os.NewSyscallError("prctl", err)
	}
	err = limits.limited(func() error {
		var err error
		if pid, err = syscall.ForkExec(path, args, attr); err != nil {
			return &ExitError{126, fmt.Sprintf("exec: %q: %v", q.Spec.Command[0], err)}
		}
		return nil
	})
	return pid, err
}

// handOut gives the files of /etc, the mount namespace and the terminal to the process that started the sandbox; the
// terminal's other end becomes the standard streams.
func (f setupFiles) handOut(c *net.UnixConn) error {
	var files []*os.File
	if f.mounts != nil {
		files = append(files, f.mounts)
	}
	files = append(files, f.etc...)
	if f.master != nil {
		files = append(files, f.master)
		for fd := range controlFD {
			if err := unix.Dup3(int(f.console.Fd()), fd, 0); err != nil {
				return os.NewSyscallError("dup3", err)
			}
		}
		_ = f.console.Close()
	}
	defer closeAll(files)
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	return send(c, startReply{SetUp: true, Mounts: f.mounts != nil}, fds)
}

// lookPath finds a command through the PATH that it will have.
func lookPath(name string, env []string) (string, error) {
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	if err := os.Setenv("PATH", path); err != nil {
		return "", err
	}
	found, err := exec.LookPath(name)
	switch {
	case err == nil:
		return found, nil
	case errors.Is(err, os.ErrPermission):
		return "", &ExitError{126, fmt.Sprintf("exec: %q: permission denied", name)}
	case errors.Is(err, unix.EISDIR):
		return "", &ExitError{126, fmt.Sprintf("exec: %q: is a directory", name)}
	case strings.ContainsRune(name, filepath.Separator):
		return "", &ExitError{127, fmt.Sprintf("exec: %q: no such file or directory", name)}
	}
	return "", &ExitError{127, fmt.Sprintf("exec: %q: executable file not found in $PATH", name)}
}

// reap waits for all children, passes signals on to the command, and returns its exit status when it has ended.
func reap(pid int, signals <-chan os.Signal) int {
	type end struct {
		pid int
		ws  syscall.WaitStatus
	}
	ends := make(chan end)
	go func() {
		for {
			var ws syscall.WaitStatus
			p, err := syscall.Wait4(-1, &ws, 0, nil)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil {
				return
			}
			ends <- end{p, ws}
		}
	}()
	for {
		select {
		case s := <-signals:
			if sig := s.(syscall.Signal); sig != unix.SIGCHLD && sig != unix.SIGURG {
				_ = syscall.Kill(pid, sig)
			}
		case e := <-ends:
			if e.pid != pid {
				continue
			}
			if e.ws.Signaled() {
				return 128 + int(e.ws.Signal())
			}
			return e.ws.ExitStatus()
		}
	}
}
