// Package vm attaches virtual machines by way of the daemon. It is for who starts them: `usernet attach --vm-socket`
// and the place of gvproxy.
//
// The one idea: the daemon makes the socket where a confined daemon may, in its state directory. What the virtual
// machine finds at the path that was asked for is a symbolic link to it, which the caller makes, with its own rights.
package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/network"
)

// kinds are the schemes of a socket's address, as package net names them, and what they mean.
var kinds = map[string]string{"unix": "stream", "unixgram": "datagram", "unixpacket": "seqpacket"}

// ParseSocket reads PATH or SCHEME://PATH. A path to which no program could connect is an error.
func ParseSocket(s string) (network.VMSocket, error) {
	scheme, path, ok := strings.Cut(s, "://")
	if !ok {
		scheme, path = "unix", s
	}
	kind := kinds[scheme]
	if kind == "" || path == "" {
		return network.VMSocket{}, fmt.Errorf(
			"socket %q: give PATH, unix://PATH, unixgram://PATH or unixpacket://PATH", s)
	}
	path, err := filepath.Abs(path)
	if len(path) > sockio.MaxPath {
		return network.VMSocket{}, fmt.Errorf("socket of the virtual machine: the path %s has %d bytes, and that of a "+
			"Unix socket at most %d: choose a shorter one", path, len(path), sockio.MaxPath)
	}
	return network.VMSocket{Kind: kind, Path: path}, err
}

// Daemon is what it needs of *api.Client.
type Daemon interface {
	Attach(ctx context.Context, q api.AttachRequest, netns *os.File) (api.AttachReply, error)
	ContainerRemove(ctx context.Context, ref string, force bool) error
}

// Attach attaches the virtual machine whose socket q.Spec.VM names, and makes the link to it. A link of usernet's
// that is at the path is replaced; anything else there is an error.
func Attach(ctx context.Context, d Daemon, q api.AttachRequest) (api.AttachReply, error) {
	if err := free(q.Spec.VM); err != nil {
		return api.AttachReply{}, err
	}
	made, err := d.Attach(ctx, q, nil)
	if err != nil {
		return made, err
	}
	if err := link(made.VM); err != nil {
		return made, errors.Join(err, d.ContainerRemove(context.WithoutCancel(ctx), made.ID, true))
	}
	return made, nil
}

// free says why a socket cannot be at a path.
func free(vm network.VMSocket) error {
	if vm.Connect {
		return nil
	}
	info, err := os.Lstat(vm.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if dir := filepath.Dir(vm.Path); !isDirectory(dir) {
			return fmt.Errorf("socket of the virtual machine: there is no directory %s", dir)
		}
		return nil
	case err != nil:
		return fmt.Errorf("socket of the virtual machine: %w", err)
	case info.Mode()&os.ModeSymlink == 0 || !ours(vm.Path):
		return fmt.Errorf("socket of the virtual machine: %s is there already: choose another path, or remove it", vm.Path)
	}
	return nil
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// ours says whether a link was made by link: it leads to a socket, of a daemon that may not run, in a directory vm.
func ours(path string) bool {
	to, err := os.Readlink(path)
	return err == nil && filepath.IsAbs(to) && filepath.Ext(to) == ".sock" && filepath.Base(filepath.Dir(to)) == "vm"
}

// link makes the link, in one step where one is there.
func link(vm network.VMSocket) error {
	if vm.Connect {
		return nil
	}
	next := fmt.Sprintf("%s.%d", vm.Path, os.Getpid())
	if err := os.Symlink(vm.Socket, next); err != nil {
		return fmt.Errorf("socket of the virtual machine: %w", err)
	}
	if err := os.Rename(next, vm.Path); err != nil {
		return fmt.Errorf("socket of the virtual machine: %w", errors.Join(err, os.Remove(next)))
	}
	return nil
}

// Unlink removes the link of a virtual machine that was detached, where it is still there.
func Unlink(vm network.VMSocket) error {
	if to, err := os.Readlink(vm.Path); vm.Socket == "" || err != nil || to != vm.Socket {
		return nil
	}
	return os.Remove(vm.Path)
}
