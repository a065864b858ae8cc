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
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/sandbox/entry"
)

// runInit is PID 1 of a sandbox: it furnishes it, starts the command, passes signals on, reaps what is left behind,
// and ends with the command's status.
func runInit() error {
	c, err := unixConn(controlFD)
	if err != nil {
		return fmt.Errorf("init without a control socket: %w", err)
	}
	if err := entry.Result(); err != nil {
		tell(c, report{Error: err.Error(), Code: 125})
		return err
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	buf := make([]byte, maxMessage)
	n, err := c.Read(buf)
	if err != nil || n == 0 {
		return errors.New("nothing to run: the command that made this sandbox is gone")
	}
	var o orders
	if err := json.Unmarshal(buf[:n], &o); err != nil {
		return err
	}
	pid, err := furnishAndStart(c, o)
	if err != nil {
		e := &ExitError{Code: 125}
		if !errors.As(err, &e) {
			e = &ExitError{125, err.Error()}
		}
		tell(c, report{Error: e.Msg, Code: e.Code})
		os.Exit(e.Code)
	}
	tell(c, report{Ready: true})
	_ = c.Close()
	closeStreams()
	os.Exit(reap(pid, signals))
	return nil
}

func tell(c *net.UnixConn, r report) {
	if b, err := json.Marshal(r); err == nil {
		_, _ = c.Write(b)
	}
}

// closeStreams lets go of the standard streams, so that their other ends see the command close them.
func closeStreams() {
	if null, err := os.OpenFile("/dev/null", os.O_RDWR, 0); err == nil {
		for fd := range 3 {
			_ = unix.Dup3(int(null.Fd()), fd, 0)
		}
		_ = null.Close()
	}
}

func furnishAndStart(c *net.UnixConn, o orders) (int, error) {
	etc, err := furnish(o)
	if err != nil {
		return 0, err
	}
	if err := handOut(c, etc); err != nil {
		return 0, err
	}
	if o.Spec.WorkingDir != "" {
		if err := enterDir(o.Spec.WorkingDir); err != nil {
			return 0, err
		}
	}
	path, err := lookPath(o.Spec.Command[0], o.Spec.Env)
	if err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{Env: o.Spec.Env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true, Setctty: o.Spec.TTY}}
	if o.Spec.User != "" {
		uid, gid, err := userIDs(o.Spec.User)
		if err != nil {
			return 0, &ExitError{125, err.Error()}
		}
		if uid != 0 || gid != 0 {
			attr.Sys.Cloneflags = unix.CLONE_NEWUSER
			attr.Sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: 0, Size: 1}}
			attr.Sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: 0, Size: 1}}
		}
	}
	// The process has nothing left that leads out of the sandbox. Others of it may see it again: their user namespaces
	// are written in its name.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return 0, os.NewSyscallError("prctl", err)
	}
	pid, err := syscall.ForkExec(path, o.Spec.Command, attr)
	if err != nil {
		return 0, &ExitError{126, fmt.Sprintf("exec: %q: %v", o.Spec.Command[0], err)}
	}
	return pid, nil
}

// handOut gives the files of /etc to the process that started the sandbox, and returns when it has written them.
func handOut(c *net.UnixConn, etc []*os.File) error {
	if len(etc) == 0 {
		return nil
	}
	defer closeAll(etc)
	fds := make([]int, len(etc))
	for i, f := range etc {
		fds[i] = int(f.Fd())
	}
	if err := send(c, report{Etc: true}, fds); err != nil {
		return err
	}
	if n, err := c.Read(make([]byte, maxMessage)); err != nil || n == 0 {
		return errors.New("the command that made this sandbox is gone")
	}
	return nil
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
