package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

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
