package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/usernet/usernet/runtimes/libnetwork"
)

// dockerIntegration has rootless Docker use usernet in slirp4netns's place, and find its network plugin: by the program
// in dockerd's place, which makes the links that Docker before 23 needs, and by specification files, in which later
// ones look as well.
func dockerIntegration(config, lib, bin, binary, sockets string) integration {
	const by = "# Written by `usernet integrate docker --write`; `--undo` removes it.\n"
	slirp, units := filepath.Join(bin, "slirp4netns"), filepath.Join(config, "systemd/user")
	i := integration{
		short: "rootless Docker's RootlessKit calls usernet in slirp4netns's place, and Docker has the drivers usernet " +
			"and usernet-overlay for networks",
		links: map[string]string{slirp: binary, filepath.Join(bin, "dockerd"): binary},
		files: map[string]string{
			filepath.Join(units, "docker.service.d/usernet.conf"): by +
				"[Unit]\nWants=usernet-docker.service\nAfter=usernet-docker.service\n" +
				"[Service]\nEnvironment=DOCKERD_ROOTLESS_ROOTLESSKIT_NET=slirp4netns\n" +
				"Environment=\"DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS=--slirp4netns-binary=" + slirp + "\"\n" +
				"Environment=\"PATH=" + pathBehind(bin, os.Getenv("PATH")) + "\"\n",
			filepath.Join(units, "usernet-docker.service"): by +
				"[Unit]\nDescription=Docker's networks of usernet\n" +
				"[Service]\nType=notify\nExecStart=\"" + binary + "\" docker-plugin\nRestart=always\n" +
				// The daemon that it starts where there is none goes on without it.
				"KillMode=process\n",
		},
		keys: "docker/",
		undone: "keep their networks until Docker starts again, which does not find their driver then: remove Docker's " +
			"networks of the drivers usernet and usernet-overlay first",
		after: "It counts from the next start: systemctl --user daemon-reload && systemctl --user restart docker; " +
			"then: docker network create -d usernet --ipam-driver usernet mynet",
	}
	for _, name := range libnetwork.Drivers() {
		i.files[filepath.Join(lib, "docker/plugins", name+".spec")] = "unix://" +
			filepath.Join(sockets, name+".sock") + "\n"
	}
	return i
}

// userLib is where Docker looks for files of the user's, whatever XDG_DATA_HOME says; data is as good without a home.
func userLib(data string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(filepath.Dir(data), "lib")
	}
	return filepath.Join(home, ".local/lib")
}

// pathBehind is a PATH with dir at its beginning, and what dockerd-rootless.sh needs at its end.
func pathBehind(dir, path string) string {
	list := []string{dir}
	for d := range strings.SplitSeq(path+":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", ":") {
		if d != "" && !slices.Contains(list, d) && !strings.ContainsAny(d, "\"\n%") {
			list = append(list, d)
		}
	}
	return strings.Join(list, ":")
}
