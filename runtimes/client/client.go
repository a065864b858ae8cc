// Package client finds the user's daemon from where container runtimes call their plugins and hooks: as uid 0 of a user
// namespace, in mount namespaces without /run, and with an environment that has lost most of its variables, or is the
// image's.
//
// [EnsureNetwork] makes a network that such a plugin is to attach to. The package never starts a daemon: one that was
// started there would live in the runtime's namespaces.
package client

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/usernet/usernet/api"
)

// ErrNoSocket is returned where nothing says where the daemon's socket is.
var ErrNoSocket = errors.New("where the usernet daemon listens is not known")

// New is a client for the daemon at socket, a path or a unix:// URL. Where it is "", the first of these says where it
// is: USERNET_HOST, XDG_RUNTIME_DIR, and the user that rootless Podman notes in _CONTAINERS_ROOTLESS_UID. The own uid
// says it only where it is not 0, since 0 may be another user's name for itself.
func New(socket string, getenv func(string) string) (*api.Client, error) {
	for _, s := range []string{socket, getenv("USERNET_HOST")} {
		if s == "" {
			continue
		}
		path := strings.TrimPrefix(s, "unix://")
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("socket %q: only unix sockets are possible: give unix:///path", s)
		}
		return api.NewClient(path), nil
	}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		return api.NewClient(filepath.Join(dir, "usernet", "usernet.sock")), nil
	}
	uid := getenv("_CONTAINERS_ROOTLESS_UID")
	if own := os.Getuid(); uid == "" && own != 0 {
		uid = fmt.Sprint(own)
	}
	if uid == "" || strings.ContainsFunc(uid, func(r rune) bool { return r < '0' || r > '9' }) {
		return nil, fmt.Errorf("%w: set XDG_RUNTIME_DIR, or give the socket's path in the configuration", ErrNoSocket)
	}
	return api.NewClient(filepath.Join("/run/user", uid, "usernet", "usernet.sock")), nil
}
