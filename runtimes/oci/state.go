package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/network"
)

// maxState and maxConfig bound what is read of a container's state and configuration, in bytes.
const (
	maxState  = 1 << 20
	maxConfig = 16 << 20
)

// readState reads the state that a runtime gives its hooks on standard input.
func readState(r io.Reader) (*specs.State, error) {
	var s specs.State
	if err := json.NewDecoder(io.LimitReader(r, maxState)).Decode(&s); err != nil {
		return nil, fmt.Errorf("the container's state on standard input: %w", err)
	}
	if s.ID == "" {
		return nil, fmt.Errorf("the container's state on standard input has no id")
	}
	return &s, nil
}

// readConfig reads the configuration in a bundle.
func readConfig(bundle string) (*specs.Spec, error) {
	f, err := os.Open(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var s specs.Spec
	if err := json.NewDecoder(io.LimitReader(f, maxConfig)).Decode(&s); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return &s, nil
}

// list are the parts of an annotation that has several, with commas or spaces between them: Podman 4 takes a comma in
// its --annotation for the beginning of another one.
func list(annotations map[string]string, name string) []string {
	return strings.FieldsFunc(annotations["usernet."+name], func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}

// known are the annotations that mean something. Others that begin with usernet. are slips.
var known = map[string]bool{
	"network":      true,
	"name":         true,
	"alias":        true,
	"publish":      true,
	"ip":           true,
	"mac":          true,
	"dns":          true,
	"egress":       true,
	"allow-egress": true,
}

// container is what annotations ask for.
func container(id string, annotations map[string]string) (network.ContainerSpec, error) {
	spec := network.ContainerSpec{
		Name:   annotations["usernet.name"],
		Labels: map[string]string{"usernet.container": id},
		DNS:    list(annotations, "dns"),
		Egress: annotations["usernet.egress"], AllowEgress: list(annotations, "allow-egress"),
	}
	for name := range annotations {
		if short, ok := strings.CutPrefix(name, "usernet."); ok && !known[short] {
			return spec, fmt.Errorf("annotation %s: there is none of this name", name)
		}
	}
	if spec.Name == "" {
		spec.Name = id[:min(12, len(id))]
	}
	var err error
	if spec.Ports, err = network.ParsePorts(list(annotations, "publish")); err != nil {
		return spec, fmt.Errorf("annotation usernet.publish: %w", err)
	}
	first := network.EndpointSpec{Aliases: list(annotations, "alias")}
	for _, ip := range list(annotations, "ip") {
		have, parse := &first.IPv4, network.ParseIPv4
		if strings.Contains(ip, ":") {
			have, parse = &first.IPv6, network.ParseIPv6
		}
		if have.IsValid() {
			return spec, fmt.Errorf("annotation usernet.ip: %s and %s: an interface has one of each family", *have, ip)
		}
		if *have, err = parse(ip); err != nil {
			return spec, fmt.Errorf("annotation usernet.ip: %w", err)
		}
	}
	if mac := annotations["usernet.mac"]; mac != "" {
		if first.MAC, err = network.ParseMAC(mac); err != nil {
			return spec, fmt.Errorf("annotation usernet.mac: %w", err)
		}
	}
	for _, name := range list(annotations, "network") {
		spec.Networks = append(spec.Networks, network.NamedEndpointSpec{Network: name})
	}
	if len(spec.Networks) == 0 {
		return spec, fmt.Errorf("annotation usernet.network: %q names no network", annotations["usernet.network"])
	}
	spec.NetworkMode, spec.Networks[0].EndpointSpec = spec.Networks[0].Network, first
	return spec, nil
}

// writeFile writes text to the file that the bundle mounts at a path of the container. Where it mounts nothing there,
// Podman's containers have it in their root file system, which is the container's own; another runtime's may be shared,
// and stays as it is.
func writeFile(bundle string, config *specs.Spec, at, text string) error {
	if text == "" {
		return nil
	}
	for _, m := range config.Mounts {
		if filepath.Clean(m.Destination) != at {
			continue
		}
		source := m.Source
		if !filepath.IsAbs(source) {
			source = filepath.Join(bundle, source)
		}
		if source == at {
			return nil // the host's own file
		}
		return overwrite(source, text)
	}
	if config.Annotations["io.container.manager"] != "libpod" || config.Root == nil {
		return nil
	}
	path := config.Root.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(bundle, path)
	}
	return writeBelow(path, strings.TrimPrefix(at, "/"), text)
}

// overwrite writes a file that is there, and no link.
func overwrite(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is no regular file", path)
	default:
		if err = f.Truncate(0); err == nil {
			_, err = io.WriteString(f, text)
		}
	}
	return errors.Join(err, f.Close())
}

// writeBelow writes a file below a directory that an image filled: its links lead nowhere else.
func writeBelow(dir, name, text string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return root.WriteFile(name, []byte(text), 0o644)
}
