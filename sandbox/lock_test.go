package sandbox

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFilesArePassedAtTheirNumbers has the next program find a file, at another number and at its own.
func TestFilesArePassedAtTheirNumbers(t *testing.T) {
	f := newFile(t, "f")
	var file unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &file); err != nil {
		t.Fatal(err)
	}
	free := newFile(t, "other") // its number is nobody else's
	for name, fd := range map[string]int{"another number": int(free.Fd()), "its own number": int(f.Fd())} {
		if err := passAt(f, fd); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var there unix.Stat_t
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			t.Errorf("%s: it closes when a program is executed: %#x, %v", name, flags, err)
		}
		if err := unix.Fstat(fd, &there); err != nil || there.Ino != file.Ino || there.Dev != file.Dev {
			t.Errorf("%s: something else is there, %v", name, err)
		}
		unix.CloseOnExec(fd)
	}
	closed := newFile(t, "closed")
	_ = closed.Close()
	if err := passAt(closed, int(free.Fd())); err == nil {
		t.Error("a closed file was passed")
	}
	_ = os.Remove(free.Name())
}
