package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

type runOptions struct {
	net                                              netFlags
	name, hostname, domainname, workdir, rootfs, usr string
	env, envFiles                                    []string
	detach, rm, interactive, tty                     bool
	guard                                            guardFlags
	life                                             lifeFlags
	mounts                                           mountFlags
	resources                                        resourceFlags
}

func runCommand() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run [flags] [--] COMMAND [ARG...]",
		Short: "Run a command in a sandbox of its own",
		Args:  cobra.MinimumNArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return runContainer(c.Context(), o, args) },
	}
	f := c.Flags()
	f.SetInterspersed(false)
	o.net.add(f)
	f.StringVar(&o.name, "name", "", "the container's name")
	f.StringVarP(&o.hostname, "hostname", "h", "", "the container's host name")
	f.StringVar(&o.domainname, "domainname", "", "the container's domain name")
	f.StringVarP(&o.workdir, "workdir", "w", "", "working directory")
	f.StringVar(&o.rootfs, "rootfs", "", "directory to be the root file system (the caller's)")
	f.StringVarP(&o.usr, "user", "u", "", "UID[:GID] to run as (root in the sandbox)")
	f.StringArrayVarP(&o.env, "env", "e", nil, "environment variable: NAME[=VALUE]")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "file with an environment variable on each line")
	f.BoolVarP(&o.detach, "detach", "d", false, "run in the background and print the container's id")
	f.BoolVar(&o.rm, "rm", false, "remove the container when it ends")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "keep standard input open")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal")
	o.guard.add(f)
	o.life.add(f)
	o.mounts.add(f)
	o.resources.add(f)
	f.Bool("help", false, "help for run")
	return c
}

// environment is what the command sees: the caller's variables, or with a root file system of its own little, and -e on
// top.
func environment(o runOptions) []string {
	env := os.Environ()
	if o.rootfs != "" {
		env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	}
	if o.tty && os.Getenv("TERM") == "" {
		env = append(env, "TERM=xterm")
	}
	return append(env, resolveEnv(o.env)...)
}

func runContainer(ctx context.Context, o runOptions, args []string) error {
	env, err := readKeyValues(o.envFiles, o.env)
	if err != nil {
		return runError{err}
	}
	o.env = resolveEnv(env)
	spec := network.ContainerSpec{
		Name:       o.name,
		Hostname:   o.hostname,
		Domainname: o.domainname,
		WorkingDir: o.workdir,
		Rootfs:     o.rootfs,
		User:       o.usr,
		Command:    args, Env: o.env, TTY: o.tty, OpenStdin: o.interactive, AutoRemove: o.rm,
		Resources: o.resources.Resources,
	}
	var files sandbox.Spec
	err = errors.Join(sandbox.CheckUser(o.usr), o.net.apply(&spec), o.guard.record(&spec), o.life.record(&spec),
		o.mounts.apply(&files, &spec))
	if err != nil {
		return runError{err}
	}
	if o.workdir == "" && o.rootfs == "" {
		o.workdir, _ = os.Getwd()
	}
	if o.rootfs != "" {
		abs, err := filepath.Abs(o.rootfs)
		if err != nil {
			return runError{err}
		}
		o.rootfs = abs
	}
	job := job{ShareAPI: o.guard.shareAPI, ShareExec: o.guard.shareExec, Sandbox: sandbox.Spec{
		Command:    args,
		WorkingDir: o.workdir,
		Rootfs:     o.rootfs,
		Domainname: o.domainname,
		User:       o.usr,
		TTY:        o.tty,
		Volumes:    files.Volumes,
		Tmpfs:      files.Tmpfs,
		ReadOnly:   files.ReadOnly,
	}}
	if err := o.guard.apply(&job.Sandbox); err != nil {
		return runError{err}
	}
	api, err := startedClient(ctx)
	if err != nil {
		return runError{err}
	}
	spec.ShareAPI, job.Socket = o.guard.shareAPI, api.Socket
	if !o.detach && spec.Resources.IsZero() { // else another process runs it
		if o.interactive || o.tty {
			job.Sandbox.Stdin = os.Stdin
		}
		if err := job.pipes(os.Stdout, os.Stderr); err != nil {
			return runError{err}
		}
		if !o.tty || o.rootfs != "" { // else the caller's terminal would be the sandbox's before there is a container
			job.begin(ctx, api, spec.NetworkMode)
			defer job.abandon()
		}
	}
	made, err := create(ctx, api, spec)
	if err != nil {
		return runError{err}
	}
	job.Container, job.Sandbox.Env = made.Container, lastOfEach(append(made.Env, environment(o)...))
	if err := job.prepare(ctx, api); err != nil {
		job.forget(api)
		return runError{err}
	}
	switch {
	case !made.Container.Resources.IsZero():
		return job.runLimited(ctx, api, o.detach, o.interactive || o.tty)
	case o.detach:
		return job.detach(ctx, api)
	}
	return job.runInForeground(ctx, api)
}

// runInForeground runs the container with this process's output, and returns its exit status as an error.
func (j *job) runInForeground(ctx context.Context, api *api.Client) error {
	code, err := j.run(ctx, api, func() {}, j.log())
	if err != nil {
		return err
	}
	if code != 0 {
		return exitCode(code)
	}
	return nil
}

// create makes the container, and shows the daemon's warnings.
func create(ctx context.Context, c *api.Client, spec network.ContainerSpec) (api.Created, error) {
	made, err := c.ContainerCreate(ctx, spec)
	if err == nil && (made.Container == nil || !idForm().MatchString(made.Container.ID)) {
		err = errors.New("the daemon's answer has no container's id, by which files are named")
	}
	for _, w := range made.Warnings {
		fmt.Fprintln(os.Stderr, "WARNING:", w)
	}
	return made, err
}

// job is one container's life, run by the process that started it or by its detached monitor.
type job struct {
	Socket    string
	StateDir  string
	Container *network.Container
	Sandbox   sandbox.Spec
	ShareAPI  bool
	ShareExec bool // the daemon may have commands run in it, also where it has the caller's files
	Again     bool // the daemon has asked for this run
	// Secret is what a process knows that acts for the user who has run the container, where that has limits.
	Secret string `json:",omitempty"`

	outputs []*output  // of the sandbox, once it has pipes
	begun   *beginning // nil: no sandbox was begun, or it was taken
}

// prepare writes the job down, so that the container can be started again, and makes it fit what there is now.
func (j *job) prepare(ctx context.Context, c *api.Client) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	j.StateDir = info.StateDir
	// Where it cannot be written down, the container runs all the same, once.
	limited := !j.Container.Resources.IsZero()
	if limited {
		j.Secret = newSecret()
	}
	if err := j.save(); err != nil && (limited || !j.Container.Restart.IsNone()) {
		return fmt.Errorf("--restart and limits: %w", err)
	}
	return j.mode(ctx, c)
}

// mode makes the sandbox fit the container's network mode.
func (j *job) mode(ctx context.Context, c *api.Client) error {
	if !j.ShareAPI {
		j.Sandbox.Hidden = append(j.Sandbox.Hidden, apiPaths(j.Socket, j.StateDir)...)
	}
	if j.Container.NetworkMode == network.HostName {
		j.Sandbox.HostNetwork = true
	}
	if owner, ok := strings.CutPrefix(j.Container.NetworkMode, "container:"); ok {
		o, err := c.Container(ctx, owner)
		if err != nil {
			return err
		}
		if o.NetworkMode == network.HostName {
			j.Sandbox.HostNetwork = true
			return nil
		}
		if o.Pid == 0 || o.Status != network.Running {
			return fmt.Errorf("cannot join network of a non running container: %s", o.ID)
		}
		j.Sandbox.JoinNet = &sandbox.Target{Pid: o.Pid, NetNS: o.NetNS, UserNS: o.UserNS}
	}
	return nil
}

// forget removes the container, whose first start has failed. Of one that the daemon has started it knows what to do.
func (j *job) forget(c *api.Client) {
	if j.Again {
		return
	}
	_ = c.ContainerRemove(context.Background(), j.Container.ID, true)
}

// shareProgram has the daemon's executable of sandboxes used, if it is the same. Else this process makes its own.
func shareProgram(ctx context.Context, c *api.Client) {
	if f, err := c.Program(ctx); err == nil {
		_ = sandbox.Share(f)
	}
}

// run starts the container, calls started when its command runs and ended when it has ended but before anybody is
// told, and returns its exit status.
func (j *job) run(ctx context.Context, c *api.Client, started, ended func()) (int, error) {
	unlock, err := j.lock(lockWait)
	if err != nil {
		return 0, runError{err}
	}
	defer unlock()
	p, err := j.process(ctx, c)
	if err != nil {
		j.forget(c)
		return 0, runError{err}
	}
	stop := p.ForwardSignals()
	defer stop()
	updates, err := sandbox.ListenFiles(filepath.Join(j.StateDir, "containers", j.Container.ID))
	if err != nil {
		p.Kill()
		j.forget(c)
		return 0, runError{err}
	}
	defer updates.Close()
	setUp := j.setUpMeanwhile(p)
	reply, err := c.ContainerStart(ctx, j.Container.ID, api.Started{Pid: p.Pid(), Monitor: os.Getpid()})
	entered := err == nil
	if ended := setUp(); ended != nil {
		err = ended // and may be why the daemon could not enter the sandbox
	}
	if err == nil {
		err = p.Proceed(sandbox.Files{ResolvConf: reply.ResolvConf, Hosts: reply.Hosts, Hostname: reply.Hostname})
	}
	if err != nil && entered {
		p.Kill()
		// The daemon lets go of a container that has started when it hears of its end from here.
		_ = c.ContainerExited(context.Background(), j.Container.ID, p.Pid(), 125)
	}
	if err != nil {
		p.Kill()
		j.forget(c)
		return 0, runError{err}
	}
	updates.Serve(p.WriteFiles) // those that came since the start wait in the socket
	execs, err := j.serveExec(p)
	if err != nil {
		fmt.Fprintln(os.Stderr, "usernet:", err) // the container runs all the same
	}
	defer execs.Close()
	userExecs, err := j.serveUserExec(p)
	if err != nil {
		fmt.Fprintln(os.Stderr, "usernet:", err)
	}
	defer userExecs.Close()
	started()
	stopHealth := j.startHealth(ctx, c, p)
	code, err := p.Wait()
	stopHealth()
	execs.Close()
	userExecs.Close()
	updates.Close() // before anybody is told: the container's next run listens there
	unlock()
	ended()
	if err != nil {
		return 0, runError{err}
	}
	// For a daemon that is not there now: it finds the status when it comes back.
	_ = writeInState(filepath.Join(j.StateDir, "containers", j.Container.ID, "exit"), []byte(strconv.Itoa(code)))
	err = c.ContainerExited(context.WithoutCancel(ctx), j.Container.ID, p.Pid(), code)
	if err != nil && !errors.Is(err, api.ErrNoDaemon) && !errdefs.IsNotFound(err) {
		fmt.Fprintln(os.Stderr, "usernet:", err)
	}
	return code, nil
}

// detach hands the job to a monitor in the background, and prints the container's id once its command runs.
func (j *job) detach(ctx context.Context, c *api.Client) error {
	_, err := j.startMonitor(ctx)
	if e := new(sandbox.ExitError); errors.As(err, &e) {
		return e
	}
	if err != nil {
		j.forget(c)
		return runError{err}
	}
	fmt.Println(j.Container.ID)
	return nil
}

// startMonitor starts the job's monitor, and returns once the container's command runs, or with an *sandbox.ExitError.
func (j *job) startMonitor(ctx context.Context) (*exec.Cmd, error) {
	b, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/proc/self/exe", monitorWord)
	cmd.Args[0], cmd.Stdin = "usernet", bytes.NewReader(b)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var m monitorReport
	if err == nil {
		err = json.Unmarshal([]byte(line), &m)
	}
	if err != nil {
		return cmd, fmt.Errorf("the container's monitor ended: %w", err)
	}
	if m.Error != "" {
		return cmd, &sandbox.ExitError{Code: m.Code, Msg: m.Error}
	}
	return cmd, nil
}
