package main

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// mountFlags are the flags of run about files.
type mountFlags struct {
	volumes, tmpfs []string
	readOnly       bool
	init           bool // which there always is
}

func (m *mountFlags) add(f *pflag.FlagSet) {
	f.StringArrayVarP(&m.volumes, "volume", "v", nil, "show a file or directory at a further place: SOURCE:TARGET[:ro]")
	f.StringArrayVar(&m.tmpfs, "tmpfs", nil, "empty file system in memory: TARGET[:size=64m,mode=1777,exec,ro]")
	f.BoolVar(&m.readOnly, "read-only", false,
		"make the root file system read-only, or without --rootfs all of the caller's files")
	f.BoolVar(&m.init, "init", false, "an init as first process, which there always is: as with docker")
}

// apply makes a spec and the container's record fit the flags.
func (m *mountFlags) apply(s *sandbox.Spec, c *network.ContainerSpec) error {
	s.ReadOnly, c.ReadOnly, c.Init = m.readOnly, m.readOnly, m.init
	for _, text := range m.volumes {
		v, err := parseVolume(text)
		if err != nil {
			return err
		}
		s.Volumes = append(s.Volumes, v)
		c.Mounts = append(c.Mounts, network.Mount{Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly})
	}
	for _, text := range m.tmpfs {
		t, err := parseTmpfs(text)
		if err != nil {
			return err
		}
		s.Tmpfs = append(s.Tmpfs, t)
		_, options, _ := strings.Cut(text, ":")
		c.Mounts = append(c.Mounts, network.Mount{
			Target: t.Target, ReadOnly: t.ReadOnly, Tmpfs: true, Options: options,
		})
	}
	seen := map[string]bool{}
	for _, mount := range c.Mounts {
		if seen[mount.Target] {
			return fmt.Errorf("duplicate mount point: %s", mount.Target)
		}
		seen[mount.Target] = true
	}
	return nil
}

// checkTarget returns a place in the sandbox, where something can be mounted.
func checkTarget(target string) (string, error) {
	if !path.IsAbs(target) {
		return "", fmt.Errorf("invalid mount path: '%s' mount path must be absolute", target)
	}
	target = path.Clean(target)
	if target == "/" {
		return "", errors.New("invalid mount path: destination can't be '/'")
	}
	if target == "/proc" || strings.HasPrefix(target, "/proc/") {
		return "", fmt.Errorf("%q cannot be mounted because it is inside /proc", target)
	}
	return target, nil
}

// parseVolume reads SOURCE:TARGET[:ro|rw].
func parseVolume(text string) (v sandbox.Volume, err error) {
	fields := strings.Split(text, ":")
	if len(fields) < 2 || len(fields) > 3 || fields[0] == "" {
		return v, fmt.Errorf("volume %q: give SOURCE:TARGET, or SOURCE:TARGET:ro", text)
	}
	if !strings.ContainsRune(fields[0], '/') && fields[0] != "." && fields[0] != ".." {
		return v, fmt.Errorf("volume %q: there are no named volumes: give a path, such as ./%s", text, fields[0])
	}
	if v.Source, err = filepath.Abs(fields[0]); err != nil {
		return v, err
	}
	if v.Target, err = checkTarget(fields[1]); err != nil || len(fields) == 2 {
		return v, err
	}
	for _, mode := range strings.Split(fields[2], ",") {
		switch mode {
		case "ro":
			v.ReadOnly = true
		case "rw", "rbind", "rprivate", "private": // as it is anyway
		default:
			return v, fmt.Errorf("volume %q: mode %q: there are ro and rw", text, mode)
		}
	}
	return v, nil
}

// tmpfsParameters are the options of tmpfs(5) that have a value, which the kernel refuses without a word about which.
var tmpfsParameters = []struct{ name, form, says string }{
	{"size", `^[0-9]+([kKmMgGtT]|%)?$`, "bytes, such as 64m, or a share of the memory, such as 10%"},
	{"mode", `^[0-7]+$`, "an octal number, such as 1777"},
	{"uid", `^[0-9]+$`, "a number"},
	{"gid", `^[0-9]+$`, "a number"},
	{"nr_inodes", `^[0-9]+[kKmMgGtT]?$`, "a number, such as 10k"},
	{"nr_blocks", `^[0-9]+[kKmMgGtT]?$`, "a number, such as 10k"},
}

// checkTmpfs says whether there is a parameter, and whether a value is one that it can have.
func checkTmpfs(key, value string) error {
	var names []string
	for _, p := range tmpfsParameters {
		if p.name != key {
			names = append(names, p.name)
		} else if !regexp.MustCompile(p.form).MatchString(value) {
			return fmt.Errorf("%s is %s", key, p.says)
		} else {
			return nil
		}
	}
	return fmt.Errorf("there are ro, exec, suid, and %s with a value", strings.Join(names, ", "))
}

// parseTmpfs reads TARGET[:OPTION,...].
func parseTmpfs(text string) (t sandbox.Tmpfs, err error) {
	target, options, _ := strings.Cut(text, ":")
	if t.Target, err = checkTarget(target); err != nil || options == "" {
		return t, err
	}
	t.Parameters = map[string]string{}
	for _, o := range strings.Split(options, ",") {
		key, value, valued := strings.Cut(o, "=")
		switch {
		case o == "exec":
			t.Exec = true
		case o == "suid":
			t.Suid = true
		case o == "ro":
			t.ReadOnly = true
		case slices.Contains([]string{"rw", "noexec", "nosuid", "nodev"}, o): // as it is anyway
		default:
			if !valued {
				key = ""
			}
			if err := checkTmpfs(key, value); err != nil {
				return t, fmt.Errorf("tmpfs %s: option %q: %w", target, o, err)
			}
			t.Parameters[key] = value
		}
	}
	return t, nil
}
