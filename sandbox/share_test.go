package sandbox

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// memfd is a file in memory with a program, or text, and seals.
func memfd(t *testing.T, content []byte, seals int) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("program", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "program")
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestOnlyTheSameProgramIsShared gives this process executables of sandboxes that are not its own.
func TestOnlyTheSameProgramIsShared(t *testing.T) {
	own, err := seal()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	another := append([]byte(nil), content...)
	another[headLen-1]++ // the end of the hash in the linker's note
	for what, test := range map[string]struct {
		file *os.File
		says string // "": it is used
	}{
		"its own":             {own, ""},
		"another program":     {memfd(t, another, allSeals), "another program"},
		"no program":          {memfd(t, []byte("#!/bin/sh\n"), allSeals), "EOF"},
		"one that can change": {memfd(t, content, allSeals&^unix.F_SEAL_WRITE&^unix.F_SEAL_SEAL), "seals"},
		"one whose mode can":  {memfd(t, content, allSeals&^unix.F_SEAL_EXEC), "seals"},
	} {
		sealed.Lock()
		before := sealed.file
		sealed.file = nil
		sealed.Unlock()
		err := Share(test.file)
		sealed.Lock()
		used := sealed.file == test.file
		sealed.file = before
		sealed.Unlock()
		if used != (test.says == "") || (err == nil) != used || err != nil &&
			!strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: used: %v, %v", what, used, err)
		}
		if _, err := test.file.Stat(); err == nil != used {
			t.Errorf("%s: open: %v", what, err == nil)
		}
	}
}

// TestTheFirstProgramStays: where one is in use already, another one is closed.
func TestTheFirstProgramStays(t *testing.T) {
	first, err := Shared()
	if err != nil {
		t.Fatal(err)
	}
	second, err := seal()
	if err != nil {
		t.Fatal(err)
	}
	if err := Share(second); err != nil {
		t.Fatal(err)
	}
	if now, err := Shared(); err != nil || now != first {
		t.Errorf("%v, %v instead of %v", now, err, first)
	}
	if _, err := second.Stat(); err == nil {
		t.Error("the other one is still open")
	}
}
