package pasta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// commandVariable tells the process in the new namespaces that it waits there, and then becomes the command.
const commandVariable = "USERNET_PASTA_COMMAND"

// commandStatus is the status that a command ended with, as an error.
type commandStatus int

// Error implements error.
func (s commandStatus) Error() string { return fmt.Sprintf("the command ended with status %d", int(s)) }

// command starts the command, or a shell, in new namespaces of all kinds but cgroups and time, in which this user is
// root, connects them, and returns the command's status.
func (o *Options) command(stderr io.Writer) error {
	log, closer, err := openLogger(o, stderr)
	if err != nil {
		return err
	}
	defer closer.Close()
	// A terminal's interrupt is for the command. Asked to end otherwise, the command ends as well, and all that it
	// started.
	signal.Ignore(syscall.SIGINT, syscall.SIGQUIT)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	runtime.LockOSThread() // the command's end is bound to that of the thread (prctl(2), PR_SET_PDEATHSIG)
	defer runtime.UnlockOSThread()
	wait, proceed, err := os.Pipe()
	if err != nil {
		return err
	}
	defer proceed.Close()
	cmd := &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       os.Args,
		Env:        append(os.Environ(), commandVariable+"=1"),
		Stdin:      os.Stdin,
		Stdout:     os.Stdout,
		Stderr:     os.Stderr,
		ExtraFiles: []*os.File{wait},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS |
				unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
			Pdeathsig:   syscall.SIGKILL,
		},
	}
	err = cmd.Start()
	_ = wait.Close()
	if err != nil {
		return fmt.Errorf("new namespaces cannot be had: %w", err)
	}
	o.PID = cmd.Process.Pid
	s, err := start(ctx, o, log)
	if err == nil {
		err = o.writePID()
	}
	if err == nil {
		_, err = proceed.WriteString("ok")
	}
	_ = proceed.Close()
	if err != nil {
		_ = cmd.Process.Kill()
	}
	kill := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer kill()
	if ended := cmd.Wait(); err == nil {
		err = statusOf(ended)
	}
	if s != nil {
		if e := s.close(); e != nil {
			log.Warn("the end", "error", e)
		}
	}
	return err
}

// statusOf is the status of a process that has ended, 128 and the signal's number where it was one, as a shell has it.
func statusOf(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return commandStatus(128 + int(w.Signal()))
	}
	return commandStatus(exit.ExitCode())
}

// runCommand waits in the new namespaces until they are connected, and becomes the command.
func (o *Options) runCommand() error {
	wait := os.NewFile(readyFD, "wait")
	text, err := io.ReadAll(wait)
	_ = wait.Close()
	if err != nil || string(text) != "ok" {
		return commandStatus(1) // who has started this says why
	}
	// The process ids of /proc are those of the new namespace; where that cannot be had, in containers with parts of it
	// hidden, it stays the old one.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err == nil {
		_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	_ = os.Unsetenv(commandVariable)
	path, args := "", o.Command
	if len(args) > 0 {
		path, err = exec.LookPath(args[0])
	} else {
		if path = os.Getenv("SHELL"); path == "" {
			path = "/bin/sh"
		}
		args = []string{"-" + filepath.Base(path)} // a login shell, by which it sets itself up
	}
	if err == nil {
		err = unix.Exec(path, args, os.Environ())
	}
	return fmt.Errorf("failed to start command or shell: %w", err)
}
