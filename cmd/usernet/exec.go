package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

type execOptions struct {
	env, envFiles            []string
	dir, user                string
	interactive, tty, detach bool
}

func execCommand() *cobra.Command {
	var o execOptions
	c := &cobra.Command{
		Use:   "exec [flags] CONTAINER [--] COMMAND [ARG...]",
		Short: "Run one more command in a running container",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if args = withoutDashes(args, 1); len(args) < 2 {
				return runError{errors.New("no command: give one behind the container's name")}
			}
			cl, err := client()
			if err != nil {
				return runError{err}
			}
			k, err := cl.Container(c.Context(), args[0])
			if err != nil {
				return runError{err}
			}
			switch {
			case k.Status != network.Running:
				return runError{fmt.Errorf("container %s is not running", k.Name)}
			case k.Pid == 0:
				return runError{fmt.Errorf("container %s was attached without a process: usernet starts nothing in it", k.Name)}
			}
			if o.detach {
				return o.inBackground(args)
			}
			links := network.LinkEnvironment(
				k,
				func(name string) (*network.Container, error) { return cl.Container(c.Context(), name) },
			)
			spec, err := o.spec(k, links, args[1:])
			if err != nil {
				return runError{err}
			}
			if k.Cgroup != "" {
				return o.inCgroup(c.Context(), cl, k, spec)
			}
			shareProgram(c.Context(), cl)
			p, err := sandbox.Exec(c.Context(), sandbox.Target{Pid: k.Pid}, spec)
			if err != nil {
				return runError{err}
			}
			defer p.ForwardSignals()()
			code, err := p.Wait()
			if err != nil {
				return runError{err}
			}
			if code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.StringArrayVarP(&o.env, "env", "e", nil, "environment variable: NAME[=VALUE]")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "file with an environment variable on each line")
	f.StringVarP(&o.dir, "workdir", "w", "", "working directory")
	f.StringVarP(&o.user, "user", "u", "", "UID[:GID] to run as (root in the sandbox)")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "keep standard input open")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal")
	f.BoolVarP(&o.detach, "detach", "d", false, "run in the background")
	return c
}

// spec is what is to run in container k, whose links give it the variables links.
func (o *execOptions) spec(k *network.Container, links, command []string) (sandbox.Spec, error) {
	env, err := readKeyValues(o.envFiles, o.env)
	if err = errors.Join(sandbox.CheckUser(o.user), err); err != nil {
		return sandbox.Spec{}, err
	}
	if o.dir == "" {
		o.dir = k.WorkingDir
	}
	var limit *sandbox.Limits // none that usernet did not make
	if !k.Attached {
		if limit, err = limits(k.Privileged, k.CapAdd, k.CapDrop, k.SecurityOpt); err != nil {
			return sandbox.Spec{}, err
		}
	}
	spec := sandbox.Spec{
		Command:    command,
		WorkingDir: o.dir,
		User:       o.user,
		Rootfs:     k.Rootfs,
		Limits:     limit,
		TTY:        o.tty,
		Stdout:     os.Stdout,
		Stderr:     os.Stderr,
		Env: lastOfEach(
			append(links, environment(runOptions{rootfs: k.Rootfs, tty: o.tty, env: append(k.Env, env...)})...),
		),
	}
	if o.interactive || o.tty {
		spec.Stdin = os.Stdin
	}
	return spec, nil
}

// inCgroup runs it where the container's limits count.
func (o *execOptions) inCgroup(ctx context.Context, cl *api.Client, k *network.Container, spec sandbox.Spec) error {
	info, err := cl.Info(ctx)
	if err != nil {
		return runError{err}
	}
	code, err := execInCgroup(ctx, info.StateDir, k.ID, spec)
	if err != nil {
		return runError{err}
	}
	if code != 0 {
		return exitCode(code)
	}
	return nil
}

// inBackground runs the same once more without -d, in a session of its own and with none of this process's streams.
func (o *execOptions) inBackground(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return runError{err}
	}
	var flags []string
	if host != "" {
		flags = append(flags, "--host", host)
	}
	flags = append(flags, "exec", "--workdir", o.dir, "--user", o.user, "--tty="+strconv.FormatBool(o.tty))
	for _, e := range resolveEnv(o.env) {
		flags = append(flags, "--env", e)
	}
	for _, f := range o.envFiles {
		flags = append(flags, "--env-file", f)
	}
	cmd := exec.Command(self, append(append(flags, "--"), args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return runError{fmt.Errorf("command in container %s: %w", args[0], err)}
	}
	return nil
}
