package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/sandbox/profile"
)

// An integration is what has to be in place for another program to use usernet: links, files, and what a person does
// then.
type integration struct {
	short string
	links map[string]string // by path: what each leads to
	files map[string]string // by path: the text of each
	after string            // for people

	keys   string // beginning of the keys of the attachments that its plugin makes; "": it makes none
	undone string // for people: what --undo does to containers that run

	used map[string]bool // links that other integrations have as well which are in place
	tidy []string        // directories below which empty ones go with what was in them
}

// integrationPaths are what integrations are made of: a home directory's configuration and data, usernet's binary, and
// the socket of its API.
type integrationPaths struct{ config, data, binary, socket string }

// integrations returns all of them, by name.
func (p integrationPaths) integrations() map[string]integration {
	return map[string]integration{
		"podman":      p.podman(),
		"docker":      p.docker(),
		"cni":         p.cni(),
		"netavark":    p.netavark(),
		"nesting":     p.nesting(),
		"oci":         p.oci(),
		"rootlesskit": p.rootlesskit(),
		"wireshark":   p.wireshark(),
	}
}

// integrationNames are those of all.
var integrationNames = []string{"cni", "docker", "nesting", "netavark", "oci", "podman", "rootlesskit", "wireshark"}

// bin is the path of a program in usernet's own directory.
func (p integrationPaths) bin(name string) string {
	return filepath.Join(p.data, "usernet", "bin", name)
}

func (p integrationPaths) podman() integration {
	slirp := p.bin("slirp4netns")
	helpers := append([]string{filepath.Dir(slirp)}, podmanHelpers...)
	return integration{
		short: "rootless Podman 4 and later call usernet in the places of slirp4netns, pasta and rootlessport",
		links: map[string]string{slirp: p.binary, p.bin("pasta"): p.binary, p.bin("rootlessport"): p.binary},
		files: map[string]string{
			filepath.Join(p.config, "containers/containers.conf.d/usernet.conf"): "" +
				"# Written by `usernet integrate podman --write`; `--undo` removes it.\n" +
				"[engine]\nnetwork_cmd_path = \"" + slirp + "\"\n" +
				"# Podman's own default, behind usernet's directory.\n" +
				"helper_binaries_dir = [\"" + strings.Join(helpers, "\", \"") + "\"]\n",
		},
		after: "Containers that are started from now on use it, whatever their --network.",
		undone: "Containers that run keep their connections by the processes of usernet that they have, until they are " +
			"stopped; those that are started from now on have Podman's own.",
	}
}

func (p integrationPaths) docker() integration {
	sockets := filepath.Join(filepath.Dir(strings.TrimPrefix(p.socket, "unix://")), "docker")
	return dockerIntegration(p.config, userLib(p.data), filepath.Dir(p.bin("dockerd")), p.binary, sockets)
}

func (p integrationPaths) cni() integration {
	dir := filepath.Join(p.data, "usernet", "cni")
	return integration{
		short: "CNI callers, such as Podman with its CNI backend and nerdctl, find the plugin usernet-cni",
		links: map[string]string{filepath.Join(dir, "usernet-cni"): p.binary},
		files: map[string]string{filepath.Join(p.config, "cni/net.d/usernet.conflist"): cniNetwork},
		after: "Add " + dir + " to CNI_PATH, or to cni_plugin_dirs of containers.conf; `usernet serve` has to run.",
		keys:  "cni/",
		undone: "keep their networks, but their runtime, which calls the plugin to remove them, does not find it any more: " +
			"remove them first, or set the integration up again for that",
	}
}

func (p integrationPaths) netavark() integration {
	dir := filepath.Join(p.config, "usernet/netavark")
	dirs := append([]string{dir}, netavarkPlugins...)
	quoted := "'" + strings.ReplaceAll(p.binary, "'", `'\''`) + "'"
	return integration{
		short: "Podman 5 and 6 have the driver usernet for networks",
		files: map[string]string{
			filepath.Join(p.config, "containers/containers.conf.d/usernet-netavark.conf"): "" +
				"# Written by `usernet integrate netavark --write`; `--undo` removes it.\n" +
				"# Podman's own default, behind usernet's directory.\n" +
				"[network]\nnetavark_plugin_dirs = [\"" + strings.Join(dirs, "\", \"") + "\"]\n",
			filepath.Join(dir, "usernet"): "" +
				"#!/bin/sh\n# Written by `usernet integrate netavark --write`; `--undo` removes it.\n" +
				"exec " + quoted + " netavark \"$@\"\n",
		},
		after: "podman network create -d usernet mynet; `usernet serve` has to run.",
		keys:  "netavark/",
		undone: "keep their networks, but Podman, which calls the driver to remove or restart them, does not find it any " +
			"more: remove them and Podman's networks of the driver first, or set the integration up again for that",
	}
}

// wireshark has it call usernet as a source of packets, from the user's folder of such programs: that of Wireshark 4.0
// and older, and that of later ones.
func (p integrationPaths) wireshark() integration {
	script := "#!/bin/sh\n# Written by `usernet integrate wireshark --write`; `--undo` removes it.\n" +
		"exec '" + strings.ReplaceAll(p.binary, "'", `'\''`) + "' extcap \"$@\"\n"
	return integration{
		short: "Wireshark and tshark list containers and networks among their interfaces",
		files: map[string]string{
			filepath.Join(p.config, "wireshark/extcap/usernet"):        script,
			filepath.Join(userLib(p.data), "wireshark/extcap/usernet"): script,
		},
		after: "Start Wireshark again, or: tshark -D; `usernet serve` has to run.",
	}
}

func (p integrationPaths) oci() integration {
	dir := filepath.Join(p.config, "usernet/hooks")
	return integration{
		short: "Podman and runc give containers with the annotation usernet.network a network",
		links: map[string]string{p.bin("usernet"): p.binary},
		files: map[string]string{
			filepath.Join(dir, "usernet-create.json"): ociHook("createRuntime", p.bin("usernet"), p.socket),
			filepath.Join(dir, "usernet-stop.json"):   ociHook("poststop", p.bin("usernet"), p.socket),
		},
		after: "podman --hooks-dir " + dir + " run --network none --annotation usernet.network=NAME ... " +
			"(or hooks_dir in containers.conf); `usernet serve` has to run.",
		keys:   "oci/",
		undone: "keep their networks until their first processes end",
	}
}

func (p integrationPaths) nesting() integration {
	profile := filepath.Join(p.config, "usernet", "nesting.json")
	return integration{
		short: "containers of Docker in which usernet runs have Docker's filter of system calls, and may make namespaces",
		files: map[string]string{profile: nestingProfile()},
		after: "docker run --security-opt seccomp=" + profile + " ...",
	}
}

func (p integrationPaths) rootlesskit() integration {
	slirp := filepath.Join(p.data, "usernet", "rootlesskit", "slirp4netns") // nothing else says that it is in use
	return integration{
		short: "RootlessKit calls usernet in slirp4netns's place",
		links: map[string]string{slirp: p.binary},
		after: "Give RootlessKit the option: --net=slirp4netns --slirp4netns-binary=" + slirp,
	}
}

// cniNetwork is a network of the name usernet; what it may have besides is in package runtimes/cni.
const cniNetwork = `{
  "cniVersion": "1.0.0",
  "name": "usernet",
  "plugins": [{
    "type": "usernet-cni",
    "capabilities": {"portMappings": true, "ips": true, "mac": true, "aliases": true, "dns": true, "bandwidth": true}
  }]
}
`

// ociHook is a hook as oci-hooks(5) describes it.
func ociHook(stage, binary, socket string) string {
	text, _ := json.MarshalIndent(map[string]any{ // strings always encode
		"version": "1.0.0",
		"hook":    map[string]any{"path": binary, "args": []string{"usernet", "oci-hook", "--host", socket, stage}},
		"when":    map[string]any{"annotations": map[string]string{`^usernet\.network$`: ".*"}},
		"stages":  []string{stage},
	}, "", "  ")
	return string(text) + "\n"
}

// nestingProfile is the filter of system calls for containers of Docker in which usernet runs.
func nestingProfile() string {
	text, err := profile.Nesting()
	if err != nil {
		panic(err) // it is made of constants alone
	}
	return text
}

// podmanHelpers are where Podman looks for its helpers by default (containers.conf(5), helper_binaries_dir).
var podmanHelpers = []string{
	"/usr/local/libexec/podman", "/usr/local/lib/podman", "/usr/libexec/podman", "/usr/lib/podman",
}

// netavarkPlugins are where Podman looks for plugins of netavark by default (containers.conf(5), netavark_plugin_dirs).
var netavarkPlugins = []string{
	"/usr/local/libexec/netavark", "/usr/libexec/netavark", "/usr/local/lib/netavark", "/usr/lib/netavark",
}

func integrateCommand() *cobra.Command {
	var write, undo bool
	c := &cobra.Command{
		Use:   "integrate podman|docker|rootlesskit|cni|netavark|oci|nesting|wireshark",
		Short: "Set another program up to use usernet, or show how",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("give one of %s", strings.Join(integrationNames, ", "))
			}
			return nil
		},
		ValidArgs: integrationNames,
		RunE: func(c *cobra.Command, args []string) error {
			if write && undo {
				return errors.New("--write and --undo contradict each other")
			}
			i, err := integrationFor(args[0])
			if err != nil {
				return err
			}
			switch {
			case write:
				return i.write(c.OutOrStdout())
			case undo:
				i.warnOfUse(c.Context(), c.ErrOrStderr(), client)
				return i.undo(c.OutOrStdout())
			}
			i.show(c.OutOrStdout())
			return nil
		},
	}
	c.Flags().BoolVar(&write, "write", false, "write the files")
	c.Flags().BoolVar(&undo, "undo", false, "remove the files again")
	return c
}

func integrationFor(name string) (integration, error) {
	config, err := os.UserConfigDir()
	if err != nil {
		return integration{}, fmt.Errorf(
			"where configuration is written is not known: set HOME or XDG_CONFIG_HOME: %w",
			err,
		)
	}
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return integration{}, fmt.Errorf(
				"where programs are linked is not known: set HOME or XDG_DATA_HOME: %w",
				err,
			)
		}
		data = filepath.Join(home, ".local/share")
	}
	binary, err := os.Executable()
	if err != nil {
		return integration{}, err
	}
	dir, err := runtimeDir()
	if err != nil {
		return integration{}, err
	}
	socket := "unix://" + filepath.Join(dir, "usernet.sock")
	paths := integrationPaths{config: config, data: data, binary: binary, socket: socket}
	all := paths.integrations()
	i, ok := all[name]
	if !ok {
		return i, fmt.Errorf("no integration is called %q: give one of %s", name, strings.Join(integrationNames, ", "))
	}
	i.tidy, i.used = []string{config, data, userLib(data)}, map[string]bool{}
	for other, o := range all {
		if other == name || !o.inPlace() {
			continue
		}
		for path := range o.links {
			i.used[path] = true
		}
	}
	return i, nil
}

// inPlace says whether the files of an integration that has some are there.
func (i integration) inPlace() bool {
	for path, text := range i.files {
		if b, err := os.ReadFile(path); err != nil || !written(b, text) {
			return false
		}
	}
	return len(i.files) > 0
}
