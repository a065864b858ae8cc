package test

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The ids of the world: root is the user who runs the tests, and the others are that user's subordinate ones
// (subuid(5)). Those from 1 on are the subordinate ids of the ordinary user in the world, who sees them from
// firstSubordinate on.
const (
	worldIDs         = 65535
	firstSubordinate = 100000
)

// subordinateStart is the first of this user's subordinate ids in a file like /etc/subuid.
func subordinateStart(path string) (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 || f[0] != u.Username && f[0] != u.Uid {
			continue
		}
		if n, err := strconv.Atoi(f[2]); err == nil && n >= worldIDs {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("%s has no %d ids for %s; as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %[3]s",
		path, worldIDs, u.Username)
}

// startRoot starts the world's root, which waits for its ids in awaitIDs.
func startRoot(cmd *exec.Cmd) error {
	wait, mapped, err := os.Pipe()
	if err != nil {
		return err
	}
	defer mapped.Close()
	cmd.ExtraFiles = []*os.File{wait}
	cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = nil, nil
	for c := range unix.CAP_LAST_CAP + 1 { // it is nobody when it is executed
		cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, uintptr(c))
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = wait.Close()
	for _, m := range []struct {
		tool, file string
		own        int
	}{{"newuidmap", "/etc/subuid", os.Geteuid()}, {"newgidmap", "/etc/subgid", os.Getegid()}} {
		start, err := subordinateStart(m.file)
		if err != nil {
			_ = cmd.Process.Kill()
			return err
		}
		out, err := exec.Command(m.tool, strconv.Itoa(cmd.Process.Pid), "0", strconv.Itoa(m.own), "1", "1", start,
			strconv.Itoa(worldIDs)).CombinedOutput()
		if err != nil {
			_ = cmd.Process.Kill()
			return fmt.Errorf("%s: %w: %s", m.tool, err, out)
		}
	}
	return nil
}

// awaitIDs returns when this process, the world's root, has its ids.
func awaitIDs() {
	f := os.NewFile(3, "mapped")
	_, _ = io.Copy(io.Discard, f)
	_ = f.Close()
}

// subordinateScript gives the ordinary user subordinate ids, and a name, without which newuidmap does nothing.
const subordinateScript = `
mkdir -p "$BIN/uidmap"
mount -t tmpfs -o mode=0755 none "$BIN/uidmap"
cp "$(command -v newuidmap)" "$(command -v newgidmap)" "$BIN/uidmap"
chmod 0755 "$BIN"/uidmap/*
echo 1000:100000:65535 > "$BIN/subids"
{ cat /etc/passwd; echo tester:x:1000:1000::/:/bin/sh; } > "$BIN/passwd"
for f in subuid subgid; do mount --bind "$BIN/subids" /etc/$f; done
mount --bind "$BIN/passwd" /etc/passwd
`

// grantTools gives the copies of newuidmap and newgidmap the capability that they have as programs of real root.
func grantTools(bin string) error {
	for tool, capability := range map[string]int{"newuidmap": unix.CAP_SETUID, "newgidmap": unix.CAP_SETGID} {
		value := make([]byte, 20)                        // struct vfs_cap_data, include/uapi/linux/capability.h
		binary.LittleEndian.PutUint32(value, 0x02000001) // VFS_CAP_REVISION_2, VFS_CAP_FLAGS_EFFECTIVE
		binary.LittleEndian.PutUint32(value[4:], 1<<capability)
		if err := unix.Setxattr(filepath.Join(bin, "uidmap", tool), "security.capability", value, 0); err != nil {
			return fmt.Errorf("capability of %s: %w", tool, err)
		}
	}
	return nil
}

// userMaps are the ids of the ordinary user's namespace.
func userMaps(own int) []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{
		{ContainerID: own, HostID: 0, Size: 1},
		{ContainerID: firstSubordinate, HostID: 1, Size: worldIDs},
	}
}
