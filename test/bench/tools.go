package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// A sandbox is a network namespace that one of the tools has connected, with an iperf3 server and a generator's inside.
type sandbox struct {
	prefix             []string // runs a command inside
	published          int      // host port of the iperf3 server inside
	publishedGenerator int      // and of the generator's
	sibling            string   // another sandbox's address with both servers, where the tool has such
	gateway            string   // what the default route leads to
	ipv6               bool     // it reaches host6
	process            int      // the tool's own, whose processor time counts
	close              func()
}

// Ports of the servers inside.
const (
	iperfPort     = 5201
	generatorPort = 5202
)

// A tool connects sandboxes.
type tool struct {
	name    string
	version func(*world) string
	connect func(w *world, mtu int) (*sandbox, error)
	// ports says that only its published ports are its own: the rest is another tool's.
	ports bool
	own   bool // it is usernet, which has to work
	// start, where it serves one namespace, that of the process target, starts it alone, and returns when it is ready.
	start func(w *world, target int) (pid int, end func(), err error)
}

// can says whether a cell is the tool's to be measured in.
func (t tool) can(c cell) bool { return !t.ports || strings.Contains(c.name, "published port") }

// allTools are those that there are, usernet first. Versions are those that the binaries say.
var allTools = []tool{
	{
		name:    "usernet",
		version: usernetVersion,
		connect: func(w *world, mtu int) (*sandbox, error) { return connectDaemon(w, mtu, nil) },
		own:     true,
	},
	{
		name:    "slirp4netns",
		version: func(w *world) string { return firstLine(w.run("slirp4netns", "--version")) },
		connect: connectSlirp((*world).original),
		start:   slirpStart((*world).original),
	},
	{
		name:    "usernet-slirp4netns",
		version: usernetVersion,
		connect: connectSlirp((*world).place),
		own:     true,
		start:   slirpStart((*world).place),
	},
	{
		name:    "pasta",
		version: func(w *world) string { return firstLine(w.run("pasta", "--version")) },
		connect: connectPasta((*world).original),
		start:   pastaStart((*world).original),
	},
	{
		name:    "usernet-pasta",
		version: usernetVersion,
		connect: connectPasta((*world).place),
		own:     true,
		start:   pastaStart((*world).place),
	},
	{name: "usernet-veth", version: usernetVersion, connect: connectVeth, own: true},
	{
		name:    "rootlesskit",
		version: func(w *world) string { return firstLine(w.run("rootlesskit", "--version")) },
		connect: connectRootlessKit,
		ports:   true,
	},
}

// tools are those of names, separated by commas, or with "" all that are installed.
func tools(names string) (list []tool, err error) {
	wanted := strings.FieldsFunc(names, func(r rune) bool { return r == ',' })
	for _, name := range wanted {
		if !slices.ContainsFunc(allTools, func(t tool) bool { return t.name == name }) {
			return nil, fmt.Errorf("--tools: there is no %q", name)
		}
	}
	for _, t := range allTools {
		if len(wanted) > 0 && !slices.Contains(wanted, t.name) {
			continue
		}
		_, err := exec.LookPath(t.name)
		switch {
		case err == nil || t.own:
			list = append(list, t)
		case len(wanted) > 0:
			return nil, fmt.Errorf("--tools: %w", err)
		default:
			fmt.Fprintf(os.Stderr, "bench: %s is not installed, so it is not measured\n", t.name)
		}
	}
	return list, nil
}

func usernetVersion(w *world) string { return firstLine(w.run(w.binary, "--version")) }

func firstLine(out string, err error) string {
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(out, "\n")
	return line
}

// startDaemon starts usernet's daemon, behind a command that runs others.
func startDaemon(w *world, prefix ...string) (*exec.Cmd, error) {
	command := append(prefix[:len(prefix):len(prefix)],
		w.binary, "serve", "--socket", w.dir+"/s", "--state-dir", w.dir+"/state")
	daemon, err := w.start(command[0], command[1:]...)
	if err != nil {
		return nil, err
	}
	return daemon, wait("the daemon", func() bool {
		_, err := w.run(w.binary, "network", "ls")
		return err == nil
	})
}

// connectDaemon is usernet's daemon with two containers; all of it runs behind prefix.
func connectDaemon(w *world, mtu int, prefix []string) (*sandbox, error) {
	daemon, err := startDaemon(w, prefix...)
	if err != nil {
		return nil, err
	}
	usernet := func(args ...string) (string, error) {
		command := append(append(prefix[:len(prefix):len(prefix)], w.binary), args...)
		return w.run(command[0], command[1:]...)
	}
	iperf, generator := w.freePort(), w.freePort()
	network := fmt.Sprint("net", mtu)
	both := fmt.Sprintf("iperf3 -s >/dev/null & exec %s %s serve :%d", self(), generatorCommand, generatorPort)
	for _, args := range [][]string{
		{"network", "create", "--ipv6", "-o", fmt.Sprint("com.docker.network.driver.mtu=", mtu), network},
		{"run", "-d", "--name", "server", "--network", network, "-p", fmt.Sprint(iperf, ":", iperfPort),
			"-p", fmt.Sprint(generator, ":", generatorPort), "--", "sh", "-c", both},
		{"run", "-d", "--name", "client", "--network", network, "--", "sleep", "100000"},
	} {
		if _, err := usernet(args...); err != nil {
			return nil, err
		}
	}
	s := &sandbox{
		prefix: append(prefix[:len(prefix):len(prefix)],
			w.binary,
			"exec",
			"client",
		), published: iperf, publishedGenerator: generator, sibling: "server", ipv6: true, process: daemon.Process.Pid,
		close: func() {
			usernet("rm", "-f", "server", "client")
			usernet("network", "rm", network)
			w.stop(daemon)
		},
	}
	s.gateway, err = w.gateway(s.prefix)
	return s, err
}

// gateway is where the default route of a sandbox leads.
func (w *world) gateway(prefix []string) (string, error) {
	out, err := w.run(prefix[0], append(prefix[1:len(prefix):len(prefix)], "ip", "-4", "route", "show", "default")...)
	if fields := strings.Fields(out); err == nil && len(fields) > 2 {
		return fields[2], nil
	}
	return "", err
}

// reaches6 says whether a sandbox reaches the host over IPv6.
func (w *world) reaches6(prefix []string) bool {
	_, err := w.run(prefix[0], append(prefix[1:len(prefix):len(prefix)], "ip", "-6", "route", "get", host6)...)
	return err == nil
}

// self is this program, which runs inside sandboxes as well.
func self() string {
	name, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return name
}

// holder starts a process in a user and network namespace of its own, for the peers to connect, and a
// server in it.
func holder(w *world) (pid int, prefix []string, stop func(), err error) {
	cmd, err := w.start("unshare", "-Urn", "sleep", "100000")
	if err != nil {
		return 0, nil, nil, err
	}
	pid = cmd.Process.Pid
	own, _ := os.Readlink("/proc/self/ns/net")
	err = wait("a network namespace", func() bool {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		return err == nil && theirs != own && strings.TrimSpace(string(name)) == "sleep"
	})
	prefix = []string{"nsenter", "--preserve-credentials", "--user", "--net", "--target", strconv.Itoa(pid)}
	return pid, prefix, func() { w.stop(cmd) }, err
}

// serveInside waits until the namespace of pid has a default route, and starts the servers there.
func serveInside(w *world, pid int, prefix []string) (stop func(), err error) {
	err = wait("a default route", func() bool {
		out, err := w.run(prefix[0], append(prefix[1:], "ip", "route")...)
		return err == nil && strings.Contains(out, "default")
	})
	if err != nil {
		return nil, err
	}
	inside := func(args ...string) (*exec.Cmd, error) {
		return w.start(prefix[0], append(prefix[1:len(prefix):len(prefix)], args...)...)
	}
	iperf, err := inside("iperf3", "-s")
	if err != nil {
		return nil, err
	}
	generator, err := inside(self(), generatorCommand, "serve", fmt.Sprint(":", generatorPort))
	if err != nil {
		return nil, err
	}
	stop = func() {
		w.stop(iperf)
		w.stop(generator)
	}
	return stop, wait(
		"the servers in a sandbox",
		func() bool { return listening(pid, iperfPort) && listening(pid, generatorPort) },
	)
}

// connectSlirp connects by slirp4netns, or what is in its place, as find finds it.
func connectSlirp(find func(*world, string) (string, error)) func(*world, int) (*sandbox, error) {
	return func(w *world, mtu int) (*sandbox, error) {
		binary, err := find(w, "slirp4netns")
		if err != nil {
			return nil, err
		}
		return slirpSandbox(w, mtu, binary)
	}
}

func slirpSandbox(w *world, mtu int, binary string) (*sandbox, error) {
	pid, prefix, stop, err := holder(w)
	if err != nil {
		return nil, err
	}
	port := w.freePort()
	socket := fmt.Sprintf("%s/slirp%d", w.dir, port)
	slirp, err := w.start(
		binary,
		"--configure",
		"--mtu",
		strconv.Itoa(mtu),
		"--api-socket",
		socket,
		strconv.Itoa(pid),
		"tap0",
	)
	if err != nil {
		return nil, err
	}
	stopServers, err := serveInside(w, pid, prefix)
	if err != nil {
		return nil, err
	}
	generator := w.freePort()
	for _, ports := range [][2]int{{port, iperfPort}, {generator, generatorPort}} {
		if err := slirpPublish(socket, ports[0], ports[1]); err != nil {
			return nil, err
		}
	}
	gateway, err := w.gateway(prefix)
	return &sandbox{
		prefix:             prefix,
		published:          port,
		publishedGenerator: generator,
		gateway:            gateway,
		process:            slirp.Process.Pid,
		close: func() {
			stopServers()
			w.stop(slirp)
			stop()
		},
	}, err
}

func slirpPublish(socket string, port, inside int) error {
	api, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer api.Close()
	fmt.Fprintf(
		api,
		`{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"0.0.0.0","host_port":%d,"guest_port":%d}}`,
		port,
		inside,
	)
	var reply struct{ Error any }
	if err := json.NewDecoder(api).Decode(&reply); err != nil || reply.Error != nil {
		return fmt.Errorf("slirp4netns: publishing a port: %v %v", err, reply.Error)
	}
	return nil
}

// rootlessKitHelpers are what RootlessKit expects of the machine, for a user who has one user id and no others.
var rootlessKitHelpers = map[string]string{
	"newuidmap": `echo "$2 $3 1" > /proc/$1/uid_map`,
	"newgidmap": `echo deny > /proc/$1/setgroups; echo "$2 $3 1" > /proc/$1/gid_map`,
	"getsubids": `echo "0: user 100000 65536"`,
}

// connectRootlessKit is RootlessKit with its builtin port driver, as rootless Docker uses it.
func connectRootlessKit(w *world, mtu int) (*sandbox, error) {
	if _, err := exec.LookPath("slirp4netns"); err != nil {
		return nil, err
	}
	bin := w.dir + "/rootlesskit-bin"
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, err
	}
	for name, script := range rootlessKitHelpers {
		if err := os.WriteFile(bin+"/"+name, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			return nil, err
		}
	}
	iperf, generator := w.freePort(), w.freePort()
	kit, err := w.start(
		"env",
		"PATH="+bin+":"+os.Getenv("PATH"),
		"rootlesskit",
		"--subid-source=dynamic",
		fmt.Sprint("--state-dir=", w.dir, "/rootlesskit", iperf),
		"--net=slirp4netns",
		fmt.Sprint("--mtu=", mtu),
		"--port-driver=builtin",
		"-p",
		fmt.Sprintf("127.0.0.1:%d:%d/tcp", iperf, iperfPort),
		"-p",
		fmt.Sprintf("127.0.0.1:%d:%d/tcp", generator, generatorPort),
		"sh",
		"-c",
		fmt.Sprintf(
			"setpriv --pdeathsig KILL iperf3 -s >/dev/null & exec %s %s serve :%d",
			self(),
			generatorCommand,
			generatorPort,
		),
	)
	if err != nil {
		return nil, err
	}
	err = wait("the servers behind RootlessKit", func() bool {
		_, err := arrived(at("127.0.0.1", generator), wantCount)
		return err == nil
	})
	return &sandbox{
		published:          iperf,
		publishedGenerator: generator,
		process:            kit.Process.Pid,
		close:              func() { w.stop(kit) },
	}, err
}

// connectPasta connects by pasta, or what is in its place, as find finds it.
func connectPasta(find func(*world, string) (string, error)) func(*world, int) (*sandbox, error) {
	return func(w *world, mtu int) (*sandbox, error) {
		binary, err := find(w, "pasta")
		if err != nil {
			return nil, err
		}
		return pastaSandbox(w, mtu, binary)
	}
}

func pastaSandbox(w *world, mtu int, binary string) (*sandbox, error) {
	pid, prefix, stop, err := holder(w)
	if err != nil {
		return nil, err
	}
	port, generator := w.freePort(), w.freePort()
	pasta, err := w.start(
		binary,
		"--foreground",
		"--config-net",
		"--mtu",
		strconv.Itoa(mtu),
		"--interface",
		"ext0",
		"-t",
		fmt.Sprintf("%d:%d,%d:%d", port, iperfPort, generator, generatorPort),
		"-u",
		"none",
		"-T",
		"none",
		"-U",
		"none",
		strconv.Itoa(pid),
	)
	if err != nil {
		return nil, err
	}
	stopServers, err := serveInside(w, pid, prefix)
	if err != nil {
		return nil, err
	}
	gateway, err := w.gateway(prefix)
	return &sandbox{
		prefix:             prefix,
		published:          port,
		publishedGenerator: generator,
		gateway:            gateway,
		ipv6:               w.reaches6(prefix),
		process:            pasta.Process.Pid,
		close: func() {
			stopServers()
			w.stop(pasta)
			stop()
		},
	}, err
}
