package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
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
