package sandbox

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// namespaces are those that a sandbox may have of its own: their names in /proc/PID/ns and nsenter's options, in the order
// in which it enters them.
var namespaces = [...]struct{ name, option string }{
	{"user", "--user"}, {"mnt", "--mount"}, {"uts", "--uts"}, {"ipc", "--ipc"}, {"net", "--net"}, {"pid", "--pid"},
}

// Exec starts one more command in all the namespaces of a running sandbox. It needs no Proceed.
func Exec(ctx context.Context, t Target, spec Spec) (*Process, error) {
	if len(spec.Command) == 0 {
		return nil, &ExitError{125, "no command specified"}
	}
	tool, err := exec.LookPath("nsenter")
	if err != nil {
		return nil, errors.New("nsenter is missing: install util-linux")
	}
	args := []string{tool, "--preserve-credentials", "--target=" + strconv.Itoa(t.Pid), "--root"}
	for _, ns := range namespaces {
		if !shares(t.Pid, ns.name) {
			args = append(args, ns.option)
		}
	}
	dir := spec.WorkingDir
	if dir == "" {
		dir = "/"
	}
	args = append(args, "--wdns="+dir, "--")
	cmd := &exec.Cmd{Path: tool, Args: append(args, spec.Command...), Env: spec.Env,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: spec.TTY, Pdeathsig: syscall.SIGKILL}}
	p := &Process{spec: spec, cmd: cmd, done: make(chan struct{})}
	if p.control, _, err = socketPair(); err != nil {
		return nil, err
	}
	if err := p.connectStreams(); err != nil {
		return nil, err
	}
	if err := p.launch(); err != nil {
		p.term.close()
		return nil, err
	}
	p.term.started()
	p.pid = cmd.Process.Pid
	return p, ctx.Err()
}

// shares says whether a process is in this one's namespace of a kind, which may not be entered again: the network in host
// mode, and whatever a process that was attached has not made for itself.
func shares(pid int, kind string) bool {
	own, err := os.Stat("/proc/self/ns/" + kind)
	if err != nil {
		return false
	}
	other, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/ns/" + kind)
	return err == nil && os.SameFile(own, other)
}
