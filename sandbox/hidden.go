package sandbox

import (
	"os"
	"path/filepath"
)

// HostServices lists where services of the host listen that would act on a container's behalf outside of its network:
// resolve names for it, or start programs. runtimeDir is the user's ($XDG_RUNTIME_DIR); "" is none. Sockets in the
// abstract namespace belong to the network namespace, so they need no hiding.
func HostServices(runtimeDir string) []string {
	list := []string{
		"/run/nscd", "/var/run/nscd", // getaddrinfo(3) asks it first
		"/run/systemd/resolve",       // nss-resolve, by varlink
		"/run/dbus", "/var/run/dbus", // nss-mymachines, nss-resolve before varlink, systemd
		"/run/avahi-daemon", "/var/run/avahi-daemon", "/run/mdnsd", // nss-mdns
		"/run/docker.sock", "/var/run/docker.sock", "/run/podman", "/run/containerd",
	}
	if runtimeDir != "" {
		for _, name := range []string{"bus", "systemd", "dbus-1", "docker.sock", "podman"} {
			list = append(list, filepath.Join(runtimeDir, name))
		}
	}
	return list
}

// hideAll hides what is at paths, and makes the files in keep anew, empty, where that hides them too.
func hideAll(paths []string, keep ...string) error {
	var real []string
	for _, path := range keep {
		if path, err := filepath.EvalSymlinks(path); err == nil {
			real = append(real, path)
		}
	}
	for _, path := range paths {
		if err := hide(path); err != nil {
			return err
		}
	}
	for _, path := range real {
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}
