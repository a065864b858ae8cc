package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
	"github.com/usernet/usernet/sandbox/profile"
)

// guardFlags are the flags of run about what a command in a sandbox may do to the host, and sees of it.
type guardFlags struct {
	privileged    bool
	capAdd        []string
	capDrop       []string
	securityOpts  []string
	devices       []string
	shareAPI      bool
	shareServices bool
	shareExec     bool
	userns        string

	limits *sandbox.Limits // what record made of them
}

func (g *guardFlags) add(f *pflag.FlagSet) {
	f.BoolVar(
		&g.privileged,
		"privileged",
		false,
		"all that root in a user namespace may do, for sandboxes in the sandbox",
	)
	f.StringSliceVar(&g.capAdd, "cap-add", nil, "add a capability to Docker's default ones, or ALL")
	f.StringSliceVar(&g.capDrop, "cap-drop", nil, "take a capability away, or ALL")
	f.StringArrayVar(&g.securityOpts, "security-opt", nil,
		"seccomp=unconfined|FILE.json, no-new-privileges, systempaths=unconfined, proc=none")
	f.StringArrayVar(&g.devices, "device", nil, "further device of the host in a --rootfs, such as /dev/net/tun")
	f.BoolVar(
		&g.shareAPI,
		"share-api",
		false,
		"let the container use usernet's API: show its socket and state to a command with the caller's files, and answer it",
	)
	f.BoolVar(&g.shareExec, "share-exec", false,
		"let docker exec run commands in it, which with the caller's files are the caller")
	f.BoolVar(&g.shareServices, "share-services", false, "show it the host's D-Bus, resolvers and container engines")
	f.StringVar(&g.userns, "userns", sandbox.UserNSAuto,
		"who root in the sandbox is: auto, host (the caller) or range (a subordinate id)")
}

// record checks the flags that exec needs as well, and puts them into what the daemon remembers of the container.
func (g *guardFlags) record(spec *network.ContainerSpec) (err error) {
	for i, o := range g.securityOpts {
		path, ok := strings.CutPrefix(o, optSeccompPrefix)
		if !ok || path == optUnconfined || path == "builtin" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("seccomp profile: %w", err)
		}
		g.securityOpts[i] = optSeccompPrefix + string(text)
	}
	spec.Privileged, spec.CapAdd, spec.CapDrop, spec.SecurityOpt = g.privileged, g.capAdd, g.capDrop, g.securityOpts
	g.limits, err = limits(g.privileged, g.capAdd, g.capDrop, g.securityOpts)
	return err
}

// apply makes a spec fit the flags, which record has checked.
func (g *guardFlags) apply(s *sandbox.Spec) error {
	switch g.userns {
	case sandbox.UserNSAuto, sandbox.UserNSHost, sandbox.UserNSRange:
		s.UserNS = g.userns
	default:
		return fmt.Errorf("--userns %q: there are auto, host and range", g.userns)
	}
	s.Limits = g.limits
	s.AllSystemPaths = g.privileged || slices.Contains(g.securityOpts, optSystemPaths)
	s.NoProc = slices.Contains(g.securityOpts, optNoProc)
	if s.NoProc && s.Rootfs == "" {
		return errors.New("--security-opt proc=none needs a --rootfs")
	}
	for _, d := range g.devices {
		if s.Rootfs == "" {
			return errors.New("--device needs a --rootfs: other sandboxes have the caller's /dev")
		}
		if d = filepath.Clean(d); !strings.HasPrefix(d, "/dev/") {
			return fmt.Errorf("--device %q: give a path below /dev", d)
		}
		s.Devices = append(s.Devices, d)
	}
	if !g.shareServices && s.Rootfs == "" {
		s.Hidden = append(s.Hidden, sandbox.HostServices(os.Getenv("XDG_RUNTIME_DIR"))...)
	}
	return nil
}

// Values of --security-opt.
const (
	optSystemPaths   = "systempaths=unconfined"
	optNoProc        = "proc=none"
	optNoNewPrivs    = "no-new-privileges"
	optUnconfined    = "unconfined"
	optSeccompPrefix = "seccomp="
)

// limits are those of a container's commands. A seccomp profile is in the options in full.
func limits(privileged bool, capAdd, capDrop, opts []string) (*sandbox.Limits, error) {
	caps, err := profile.Capabilities(capAdd, capDrop)
	if err != nil {
		return nil, err
	}
	l := new(sandbox.Limits)
	seccomp := ""
	if privileged {
		caps, seccomp = profile.All, optUnconfined
	}
	for _, o := range opts {
		text, isProfile := strings.CutPrefix(o, optSeccompPrefix)
		name, value, _ := strings.Cut(strings.Replace(o, ":", "=", 1), "=")
		switch {
		case isProfile:
			seccomp = text
		case o == optSystemPaths, o == optNoProc:
		case name == optNoNewPrivs && (value == "" || value == "true"):
			l.NoNewPrivileges = true
		case name == optNoNewPrivs && value == "false":
		default:
			return nil, fmt.Errorf(
				"--security-opt %.40q: there are seccomp=unconfined, seccomp=FILE, no-new-privileges, %s and %s",
				o,
				optSystemPaths,
				optNoProc,
			)
		}
	}
	l.Capabilities = uint64(caps)
	switch seccomp {
	case optUnconfined:
	case "", "builtin":
		l.Filter, err = profile.Default(caps)
	default:
		l.Filter, err = profile.Load(seccomp, caps)
	}
	return l, err
}
