package libnetwork

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// socketsDir is where dockerd looks for its plugins' sockets. In RootlessKit's mount namespace it is rootless Docker's
// own.
const socketsDir = "/run/docker/plugins"

// Dockerd takes the place of dockerd within RootlessKit, for as long as it takes to link the sockets in dir to where
// dockerd looks for them, and goes on as the next program of that name in PATH. It is needed since dockerd before
// version 23 looks in no directory that belongs to the user. A link that cannot be made is no reason not to start
// Docker: then it has no such plugin, and says so. Dockerd returns only with an error.
func Dockerd(dir string, args []string) error {
	next, err := nextDockerd(os.Getenv("PATH"))
	if err != nil {
		return err
	}
	if os.Getenv("ROOTLESSKIT_STATE_DIR") != "" || os.Getenv("_DOCKERD_ROOTLESS_CHILD") != "" {
		if err := linkSockets(dir, socketsDir); err != nil {
			fmt.Fprintln(os.Stderr, "usernet: Docker will not find its network plugin:", err)
		}
	}
	return fmt.Errorf("%s: %w", next, unix.Exec(next, append([]string{"dockerd"}, args...), os.Environ()))
}

// linkSockets makes a link to each driver's socket.
func linkSockets(dir, in string) error {
	if err := os.MkdirAll(in, 0o755); err != nil {
		return err
	}
	for _, name := range Drivers() {
		link := filepath.Join(in, name+".sock")
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Symlink(filepath.Join(dir, name+".sock"), link); err != nil {
			return err
		}
	}
	return nil
}

// nextDockerd is the first program called dockerd in a PATH that is not this one.
func nextDockerd(path string) (string, error) {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return "", err
	}
	for dir := range strings.SplitSeq(path, ":") {
		p := filepath.Join(dir, "dockerd")
		info, err := os.Stat(p)
		if dir != "" && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && !os.SameFile(info, self) {
			return p, nil
		}
	}
	return "", fmt.Errorf("there is no dockerd in PATH (%s) but usernet's link", path)
}
