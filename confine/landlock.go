package confine

import (
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

const (
	readRights  = ll.AccessFSReadFile | ll.AccessFSReadDir
	writeRights = readRights | ll.AccessFSWriteFile | ll.AccessFSTruncate |
		ll.AccessFSRemoveDir | ll.AccessFSRemoveFile |
		ll.AccessFSMakeDir | ll.AccessFSMakeReg | ll.AccessFSMakeSock | ll.AccessFSMakeSym
	// Of a directory that a socket is in: the socket can be made and removed, and nothing else is made or written.
	socketRights  = ll.AccessFSMakeSock | ll.AccessFSRemoveFile
	fileRights    = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate
	modifyRights  = fileRights | ll.AccessFSReadDir
	deviceRights  = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSIoctlDev
	programRights = readRights | ll.AccessFSExecute
)

// restrictFiles leaves the process the files of p. Nothing else may be executed but files in memory, which no Landlock
// covers. Ports are not restricted: which ones a
// container will publish, and where it will connect to, is not known when the daemon starts. Signals are not restricted
// either: the daemon ends containers, which are outside of its domain.
func restrictFiles(p Paths) error {
	if v, err := ll.LandlockGetABIVersion(); err != nil || v < 1 {
		return fmt.Errorf(
			"%w: the kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, and landlock in lsm=)",
			errUnsupported,
		)
	}
	var rules []landlock.Rule
	for _, path := range p.Write {
		if _, err := os.Stat(path); err == nil {
			rules = append(rules, landlock.PathAccess(writeRights, path).WithRefer())
		}
	}
	for _, kind := range []struct {
		paths  []string
		rights landlock.AccessFSSet
	}{
		{p.Read, readRights}, {p.Sockets, socketRights}, {p.Modify, modifyRights}, {p.Devices, deviceRights},
		{p.Programs, programRights},
	} {
		for _, path := range kind.paths {
			info, err := os.Stat(path)
			switch {
			case err != nil: // there is nothing
			case info.IsDir():
				rules = append(rules, landlock.PathAccess(kind.rights, path))
			default:
				rules = append(rules, landlock.PathAccess(kind.rights&^ll.AccessFSReadDir, path))
			}
		}
	}
	rules = append(rules, landlock.PathAccess(fileRights, "/dev/null"))
	return landlock.V5.BestEffort().RestrictPaths(rules...)
}
