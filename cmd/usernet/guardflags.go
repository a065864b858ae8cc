package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/usernet/usernet/sandbox"
)

// guardFlags are the flags of run about what a command in a sandbox may do to the host, and sees of it.
type guardFlags struct {
	privileged    bool
	securityOpts  []string
	devices       []string
	shareAPI      bool
	shareServices bool
	userns        string
}

func (g *guardFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&g.privileged, "privileged", false, "all of what root in a user namespace may do, for sandboxes in the sandbox")
	f.StringArrayVar(&g.securityOpts, "security-opt", nil, "systempaths=unconfined, proc=none")
	f.StringArrayVar(&g.devices, "device", nil, "further device of the host in a --rootfs, such as /dev/net/tun")
	f.BoolVar(&g.shareAPI, "share-api", false, "let the container use usernet's API: show its socket and state to a command with the caller's files, and answer it")
	f.StringVar(&g.userns, "userns", sandbox.UserNSAuto, "who root in the sandbox is: auto, host (the caller) or range (a subordinate id)")
	f.BoolVar(&g.shareServices, "share-services", false, "show it the host's D-Bus, resolvers and container engines")
}

// apply makes a spec fit the flags.
func (g *guardFlags) apply(s *sandbox.Spec) error {
	switch g.userns {
	case sandbox.UserNSAuto, sandbox.UserNSHost, sandbox.UserNSRange:
		s.UserNS = g.userns
	default:
		return fmt.Errorf("--userns %q: there are auto, host and range", g.userns)
	}
	s.AllSystemPaths = g.privileged
	for _, o := range g.securityOpts {
		switch o {
		case "systempaths=unconfined":
			s.AllSystemPaths = true
		case "proc=none":
			s.NoProc = true
		default:
			return fmt.Errorf("--security-opt %q: there are systempaths=unconfined and proc=none", o)
		}
	}
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

// apiPaths lists what of usernet itself is hidden from a sandbox with the caller's files: its state, and the directory of
// its socket, or where that may hold other things too, the socket.
func apiPaths(socket, stateDir string) []string {
	if dir := filepath.Dir(socket); strings.HasPrefix(filepath.Base(dir), "usernet") {
		return []string{stateDir, dir}
	}
	return []string{stateDir, socket}
}
