package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// netFlags are the flags that say how a container is connected; run and attach share them.
type netFlags struct {
	networks, publish, expose, aliases, links, addHost, dns, dnsSearch, dnsOption, labels []string
	ip, ip6, mac                                                                          string
	publishAll, hostLoopback                                                              bool
}

func (n *netFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&n.networks, "network", nil, "network to connect to (repeatable)")
	f.StringArrayVarP(&n.publish, "publish", "p", nil, "publish a port: [HOSTIP:][HOSTPORT:]PORT[/PROTO]")
	f.StringArrayVar(&n.expose, "expose", nil, "expose a port")
	f.BoolVarP(&n.publishAll, "publish-all", "P", false, "publish all exposed ports to random ports")
	f.StringArrayVar(&n.aliases, "network-alias", nil, "another name on the network")
	f.StringArrayVar(&n.links, "link", nil, "add a link to another container: NAME[:ALIAS]")
	f.StringArrayVar(&n.addHost, "add-host", nil, "add a line to /etc/hosts: NAME:IP")
	f.StringArrayVar(&n.dns, "dns", nil, "resolver for names that are no containers'")
	f.StringArrayVar(&n.dnsSearch, "dns-search", nil, "search domain")
	f.StringArrayVar(&n.dnsOption, "dns-option", nil, "resolver option")
	f.StringArrayVarP(&n.labels, "label", "l", nil, "label: KEY=VALUE")
	f.StringVar(&n.ip, "ip", "", "IPv4 address")
	f.StringVar(&n.ip6, "ip6", "", "IPv6 address")
	f.StringVar(&n.mac, "mac-address", "", "MAC address")
	f.BoolVar(&n.hostLoopback, "host-loopback", false, "let the container reach the host's loopback at the gateway")
}

func (n *netFlags) apply(spec *network.ContainerSpec) error {
	var err error
	if spec.Ports, err = network.ParsePorts(n.publish); err != nil {
		return err
	}
	if spec.Exposed, err = network.ParseExpose(n.expose); err != nil {
		return err
	}
	e := network.EndpointSpec{Aliases: n.aliases}
	if n.ip != "" {
		if e.IPv4, err = netip.ParseAddr(n.ip); err != nil || !e.IPv4.Is4() {
			return fmt.Errorf("invalid IPv4 address: %s", n.ip)
		}
	}
	if n.ip6 != "" {
		if e.IPv6, err = netip.ParseAddr(n.ip6); err != nil || !e.IPv6.Is6() {
			return fmt.Errorf("invalid IPv6 address: %s", n.ip6)
		}
	}
	if n.mac != "" {
		if e.MAC, err = network.ParseMAC(n.mac); err != nil {
			return err
		}
	}
	for _, l := range n.links {
		link, err := network.ParseLink(l)
		if err != nil {
			return err
		}
		e.Links = append(e.Links, link)
	}
	for _, h := range n.addHost {
		line, err := network.ParseExtraHost(h)
		if err != nil {
			return err
		}
		spec.ExtraHosts = append(spec.ExtraHosts, line)
	}
	spec.Links, spec.DNS, spec.DNSSearch, spec.DNSOptions = e.Links, n.dns, n.dnsSearch, n.dnsOption
	spec.PublishAll, spec.HostLoopback = n.publishAll, n.hostLoopback
	spec.Labels = keyValues(n.labels)
	names := n.networks
	if len(names) == 0 {
		names = []string{network.BridgeName}
	}
	spec.NetworkMode = names[0]
	for i, name := range names {
		if i > 0 {
			e = network.EndpointSpec{Aliases: n.aliases}
		}
		spec.Networks = append(spec.Networks, network.NamedEndpointSpec{Network: name, EndpointSpec: e})
	}
	return nil
}

func keyValues(list []string) map[string]string {
	m := map[string]string{}
	for _, kv := range list {
		k, v, _ := strings.Cut(kv, "=")
		m[k] = v
	}
	return m
}

type runOptions struct {
	net                                              netFlags
	name, hostname, domainname, workdir, rootfs, usr string
	env                                              []string
	detach, rm, interactive, tty                     bool
}

func runCommand() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use: "run [flags] [--] COMMAND [ARG...]", Short: "Run a command in a sandbox of its own", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runContainer(c.Context(), o, args) },
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
	f.BoolVarP(&o.detach, "detach", "d", false, "run in the background and print the container's id")
	f.BoolVar(&o.rm, "rm", false, "remove the container when it ends")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "keep standard input open")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal")
	f.Bool("help", false, "help for run")
	return c
}

// environment is what the command sees: the caller's variables, or with a root file system of its own little, and -e on top.
func environment(o runOptions) []string {
	env := os.Environ()
	if o.rootfs != "" {
		env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	}
	if o.tty && os.Getenv("TERM") == "" {
		env = append(env, "TERM=xterm")
	}
	for _, e := range o.env {
		if !strings.Contains(e, "=") {
			v, ok := os.LookupEnv(e)
			if !ok {
				continue
			}
			e += "=" + v
		}
		env = append(env, e)
	}
	return env
}

func runContainer(ctx context.Context, o runOptions, args []string) error {
	spec := network.ContainerSpec{
		Name: o.name, Hostname: o.hostname, Domainname: o.domainname, WorkingDir: o.workdir, Rootfs: o.rootfs, User: o.usr,
		Command: args, Env: o.env, TTY: o.tty, OpenStdin: o.interactive, AutoRemove: o.rm,
	}
	if err := o.net.apply(&spec); err != nil {
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
	api, err := startedClient(ctx)
	if err != nil {
		return runError{err}
	}
	job := job{Socket: api.Socket, Sandbox: sandbox.Spec{
		Command: args, Env: environment(o), WorkingDir: o.workdir, Rootfs: o.rootfs, Domainname: o.domainname, User: o.usr, TTY: o.tty,
	}}
	job.Container, err = create(ctx, api, spec)
	if err != nil {
		return runError{err}
	}
	if err := job.mode(ctx, api); err != nil {
		job.forget(api)
		return runError{err}
	}
	if o.detach {
		return job.detach(ctx, api)
	}
	if o.interactive || o.tty {
		job.Sandbox.Stdin = os.Stdin
	}
	job.Sandbox.Stdout, job.Sandbox.Stderr = os.Stdout, os.Stderr
	code, err := job.run(ctx, api, func() {}, func() {})
	if err != nil {
		return err
	}
	if code != 0 {
		return exitCode(code)
	}
	return nil
}

func create(ctx context.Context, c *api.Client, spec network.ContainerSpec) (*network.Container, error) {
	var made api.Created
	if err := c.Do(ctx, "POST", "/usernet/containers", spec, &made); err != nil {
		return nil, err
	}
	for _, w := range made.Warnings {
		fmt.Fprintln(os.Stderr, "WARNING:", w)
	}
	return made.Container, nil
}

// job is one container's life, run by the process that started it or by its detached monitor.
type job struct {
	Socket    string
	StateDir  string
	Container *network.Container
	Sandbox   sandbox.Spec
}

// mode makes the sandbox fit the container's network mode.
func (j *job) mode(ctx context.Context, c *api.Client) error {
	var info api.Info
	if err := c.Do(ctx, "GET", "/usernet/info", nil, &info); err != nil {
		return err
	}
	j.StateDir = info.StateDir
	if j.Container.NetworkMode == network.HostName {
		j.Sandbox.HostNetwork = true
	}
	if owner, ok := strings.CutPrefix(j.Container.NetworkMode, "container:"); ok {
		var o network.Container
		if err := c.Do(ctx, "GET", "/usernet/containers/"+owner, nil, &o); err != nil {
			return err
		}
		j.Sandbox.JoinNet = &sandbox.Target{Pid: o.Pid, NetNS: o.NetNS, UserNS: o.UserNS}
	}
	return nil
}

func (j *job) path(suffix string) string { return "/usernet/containers/" + j.Container.ID + suffix }

func (j *job) forget(c *api.Client) {
	_ = c.Do(context.Background(), "DELETE", j.path("?force=1"), nil, nil)
}

// run starts the container, calls started when its command runs and ended when it has ended but before anybody is
// told, and returns its exit status.
func (j *job) run(ctx context.Context, c *api.Client, started, ended func()) (int, error) {
	p, err := sandbox.Start(ctx, j.Sandbox)
	if err != nil {
		j.forget(c)
		return 0, runError{err}
	}
	stop := p.ForwardSignals()
	defer stop()
	var reply api.StartReply
	err = c.Do(ctx, "POST", j.path("/start"), api.Started{Pid: p.Pid(), Monitor: os.Getpid()}, &reply)
	if err == nil {
		err = p.Proceed(sandbox.Files{ResolvConf: reply.ResolvConf, Hosts: reply.Hosts, Hostname: reply.Hostname})
	}
	if err != nil {
		p.Kill()
		j.forget(c)
		return 0, runError{err}
	}
	started()
	code, err := p.Wait()
	ended()
	if err != nil {
		return 0, runError{err}
	}
	// For a daemon that is not there now: it finds the status when it comes back.
	_ = os.WriteFile(filepath.Join(j.StateDir, "containers", j.Container.ID, "exit"), []byte(strconv.Itoa(code)), 0o600)
	if err := c.Do(context.WithoutCancel(ctx), "POST", j.path("/exit?code="+strconv.Itoa(code)), nil, nil); err != nil && !errors.Is(err, api.ErrNoDaemon) {
		var e *api.Error
		if !errors.As(err, &e) || e.Status != 404 {
			fmt.Fprintln(os.Stderr, "usernet:", err)
		}
	}
	return code, nil
}

// detach hands the job to a monitor in the background, and prints the container's id once its command runs.
func (j *job) detach(ctx context.Context, c *api.Client) error {
	self, err := os.Executable()
	if err != nil {
		return runError{err}
	}
	b, err := json.Marshal(j)
	if err != nil {
		return runError{err}
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, "monitor")
	cmd.Stdin = strings.NewReader(string(b))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return runError{err}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		j.forget(c)
		return runError{err}
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var m monitorReport
	if err == nil {
		err = json.Unmarshal([]byte(line), &m)
	}
	if err != nil {
		j.forget(c)
		return runError{fmt.Errorf("the container's monitor ended: %w", err)}
	}
	if m.Error != "" {
		return &sandbox.ExitError{Code: m.Code, Msg: m.Error}
	}
	fmt.Println(j.Container.ID)
	return nil
}
