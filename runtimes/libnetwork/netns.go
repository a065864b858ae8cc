package libnetwork

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// callersNamespace opens the network namespace in which dockerd looks for interfaces: that of RootlessKit, in which it
// runs, or which RootlessKit has detached and keeps as a file of its state directory (--detach-netns).
func callersNamespace(pid int) (*os.File, error) {
	proc := fmt.Sprintf("/proc/%d", pid)
	f, err := os.Open(filepath.Join(proc, "ns/net"))
	if err != nil {
		return nil, fmt.Errorf("network namespace of dockerd: %w", err)
	}
	var own, its unix.Stat_t
	if err := errors.Join(unix.Stat("/proc/self/ns/net", &own), unix.Fstat(int(f.Fd()), &its)); err != nil {
		return nil, errors.Join(fmt.Errorf("network namespace of dockerd: %w", err), f.Close())
	}
	if own.Dev != its.Dev || own.Ino != its.Ino {
		return f, nil
	}
	_ = f.Close()
	environ, err := os.ReadFile(filepath.Join(proc, "environ"))
	if err != nil {
		return nil, fmt.Errorf("environment of dockerd: %w", err)
	}
	for v := range bytes.SplitSeq(environ, []byte{0}) {
		if dir, ok := bytes.CutPrefix(v, []byte("ROOTLESSKIT_STATE_DIR=")); ok {
			return os.Open(filepath.Join(proc, "root", string(dir), "netns"))
		}
	}
	return nil, errors.New("the caller is in the host's network namespace: this plugin is for rootless Docker")
}
