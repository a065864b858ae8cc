package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/sandbox/entry"
)

// Program returns the content of the executable of the roles, where the main program carries a smaller one than itself;
// nil where it does not, as without Program: the program that runs plays them then. Set it first thing in main.
var Program func() io.Reader

// role is a start of the program in one of its roles.
type role struct {
	name string
	// control is the role's end of its socket; it becomes descriptor controlFD.
	control *os.File
	// makes are the namespaces that the process gets of its own, flags of clone(2).
	makes uintptr
	// namespaces are entered before the role runs, in this order.
	namespaces []*os.File
	// cloneFlags, where not 0, has the role run in a child that is the caller's own, after the namespaces were entered
	// (entry.Steps). The process that is started then ends at once.
	cloneFlags uintptr
	// files follow the namespaces.
	files []*os.File
}

// command is the command that starts the role: the sealed program, and nothing inherited beyond what the role names and
// the program itself.
func (r role) command() (*exec.Cmd, error) {
	program, err := sealedProgram()
	if err != nil {
		return nil, err
	}
	var files []*os.File
	if r.control != nil {
		files = append(append(append(files, r.control), r.namespaces...), r.files...)
	}
	steps := entry.Steps{Namespaces: len(r.namespaces), CloneFlags: r.cloneFlags}
	return &exec.Cmd{
		// By its number in the child, to which it is copied: another could be overwritten by what is inherited.
		Path:        fmt.Sprintf("/proc/self/fd/%d", controlFD+len(files)),
		Args:        []string{programName(r.name), r.name, steps.Argument()},
		Env:         ownEnv,
		ExtraFiles:  append(files, program),
		SysProcAttr: new(syscall.SysProcAttr),
	}, nil
}

// programName is what a process in a role is called, in 15 bytes or less.
func programName(role string) string { return "usernet-" + strings.Trim(role, "_") }

// sealed is the program of the roles that this process has made.
var sealed struct {
	sync.Mutex
	file *os.File
}

// sealedProgram is the roles' executable: a file in memory whose content and mode no process can change. A process in
// a sandbox reaches the executable of the sandbox's init by /proc/1/exe, and root there may be the user itself: what it
// finds is this copy, and not a file of the host's (CVE-2019-5736).
func sealedProgram() (*os.File, error) {
	sealed.Lock()
	defer sealed.Unlock()
	if sealed.file == nil {
		f, err := seal()
		if err != nil {
			return nil, fmt.Errorf("the executable of sandboxes: %w", err)
		}
		sealed.file = f
	}
	return sealed.file, nil
}

// image is the program that is copied: the one that the main program carries, or itself.
func image() (io.ReadCloser, error) {
	if Program != nil {
		if carried := Program(); carried != nil {
			return io.NopCloser(carried), nil
		}
	}
	return os.Open("/proc/self/exe")
}

// allSeals are those of the file: neither its content nor who may execute it changes, and the seals stay.
const allSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_EXEC

// seal makes the file in memory and returns it open for reading: what is open for writing cannot be executed.
func seal() (*os.File, error) {
	image, err := image()
	if err != nil {
		return nil, err
	}
	if self, is := image.(*os.File); is {
		if seals, err := unix.FcntlInt(self.Fd(), unix.F_GET_SEALS, 0); err == nil && seals&unix.F_SEAL_WRITE != 0 {
			return self, nil // this process plays a role itself
		}
	}
	defer image.Close()
	// A child forked meanwhile would have the file open for writing until it executes something.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.MemfdCreate("usernet", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("usernet", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "usernet")
	defer f.Close()
	if err := entry.Copy(f, image); err != nil {
		return nil, err
	}
	// Root in a sandbox that is not the caller executes it as well.
	if err := f.Chmod(0o555); err != nil {
		return nil, err
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, allSeals)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, allSeals&^unix.F_SEAL_EXEC)
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// libraries are the files and directories that the program of the roles needs to start besides itself: none, unless it
// was linked with the C library, which a plain go build may do.
func libraries() []string {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil
	}
	defer f.Close()
	head := make([]byte, 4096)
	if _, err := io.ReadFull(f, head); err != nil || !entry.Dynamic(head) {
		return nil
	}
	return []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/nix/store"}
}
