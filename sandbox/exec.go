package sandbox

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// Exec starts one more command in all the namespaces of a running sandbox. It needs no Proceed.
func Exec(ctx context.Context, t Target, spec Spec) (*Process, error) {
	if len(spec.Command) == 0 {
		return nil, &ExitError{125, "no command specified"}
	}
	tool, err := exec.LookPath("nsenter")
	if err != nil {
		return nil, errors.New("nsenter is missing: install util-linux")
	}
	args := []string{tool, "--preserve-credentials", "--target=" + strconv.Itoa(t.Pid), "--user", "--mount", "--uts", "--ipc", "--pid", "--root"}
	if !sameNetwork(t.Pid) {
		args = append(args, "--net")
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

// sameNetwork says whether a process is in this one's network namespace: in host mode it is, and may not be entered again.
func sameNetwork(pid int) bool {
	own, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return false
	}
	other, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/ns/net")
	return err == nil && os.SameFile(own, other)
}
