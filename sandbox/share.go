package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A copy of the executable costs each start some milliseconds, and each container its pages. So the daemon's is used
// where it is the same program.

// headLen is how much of two programs has to be equal: the ELF headers and the linker's note, which has the hash of the
// build.
const headLen = 4096

// buildNote begins the note that the Go linker writes (cmd/link, -buildid).
var buildNote = []byte("Go\x00\x00")

// Shared returns the executable of the roles for another process, or an error where it cannot be shared: before Linux
// 6.3 root in one sandbox could change the file's mode for all of them. The file stays this package's.
func Shared() (*os.File, error) {
	f, err := sealedProgram()
	if err != nil {
		return nil, err
	}
	if err := checkSeals(f); err != nil {
		return nil, err
	}
	return f, nil
}

// Share has this process use another's executable of the roles, if that is the one that it would make itself. It takes
// f over. Call it before anything is started.
func Share(f *os.File) error {
	err := checkSeals(f)
	if err == nil {
		err = checkSame(f)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("another process's executable of sandboxes is not used: %w", err), f.Close())
	}
	sealed.Lock()
	defer sealed.Unlock()
	if sealed.file != nil {
		return f.Close()
	}
	sealed.file = f
	return nil
}

func checkSeals(f *os.File) error {
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if seals&allSeals != allSeals {
		return fmt.Errorf("it has the seals %#x of %#x", seals, allSeals)
	}
	return nil
}

// checkSame compares the beginning of f with that of the program that seal would copy. The entry point differs: Patch
// has changed it.
func checkSame(f *os.File) error {
	image, err := image()
	if err != nil {
		return err
	}
	defer image.Close()
	own, other := make([]byte, headLen), make([]byte, headLen)
	if _, err := io.ReadFull(image, own); err != nil {
		return err
	}
	if _, err := f.ReadAt(other, 0); err != nil {
		return err
	}
	for _, head := range [][]byte{own, other} {
		clear(head[ehdrEntry : ehdrEntry+8])
	}
	if !bytes.Contains(own, buildNote) || !bytes.Equal(own, other) {
		return errors.New("it is another program")
	}
	return nil
}

// ehdrEntry is where an ELF header of 64 bits has the entry point.
const ehdrEntry = 24
