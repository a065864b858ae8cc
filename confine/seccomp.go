package confine

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data, include/uapi/linux/seccomp.h. An argument's low half is its first on the
// little-endian machines that there are lists for.
const (
	offNumber = 0
	offArch   = 4
	offArg0   = 16
	offArg2   = 32
)

// newNamespaces are the flags of clone(2) that make namespaces. CLONE_NEWTIME is one of clone3(2) only.
const newNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// toWrite are the flags of openat(2) with which a file may be changed.
const toWrite = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC | unix.O_TMPFILE&^unix.O_DIRECTORY

// filterSystemCalls allows the system calls of the profile; others fail with EPERM. The program is put
// together here with x/net/bpf: one list whose members are treated alike needs no compiler of policies, which is what
// modules for seccomp are.
func (p Profile) filterSystemCalls() error {
	if auditArch == 0 {
		return fmt.Errorf("%w: no list of system calls for this architecture", errUnsupported)
	}
	program, err := p.seccompProgram()
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, r := range program {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// TSYNC: all threads. SPEC_ALLOW: no slower branches for it, which protect programs that isolate within themselves.
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	switch {
	case errno == unix.ENOSYS || errno == unix.EINVAL:
		return fmt.Errorf(
			"%w: the kernel has no system call filters (CONFIG_SECCOMP_FILTER): %w",
			errUnsupported,
			errno,
		)
	case errno != 0:
		return fmt.Errorf("seccomp: %w", errno)
	case r != 0:
		return fmt.Errorf("seccomp: thread %d could not be confined", r)
	}
	return nil
}

// seccompProgram is the filter. Calls whose arguments matter come first: it runs for each of them. The others are
// compared with one number after the other, which the kernel does once for each and remembers (seccomp_cache_prepare in
// kernel/seccomp.c).
func (p Profile) seccompProgram() ([]bpf.RawInstruction, error) {
	deny := bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	allow := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		deny, // a call of another architecture, with other numbers
		bpf.LoadAbsolute{Off: offNumber, Size: 4},
	}
	// Threads, but no processes; or both, but no namespaces.
	clone := bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: unix.CLONE_THREAD, SkipTrue: 1}
	if p.children {
		clone = bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: newNamespaces, SkipTrue: 1}
	}
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_CLONE, SkipTrue: 4},
		bpf.LoadAbsolute{Off: offArg0, Size: 4},
		clone,
		allow,
		deny,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_SOCKET, SkipTrue: uint8(2 + 2*len(p.families))},
		bpf.LoadAbsolute{Off: offArg0, Size: 4},
	)
	for _, f := range p.families {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: f, SkipTrue: 1}, allow)
	}
	program = append(program, deny)
	if p.readOnly {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_OPENAT, SkipTrue: 4},
			bpf.LoadAbsolute{Off: offArg2, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: toWrite, SkipTrue: 1},
			allow,
			deny,
		)
	}
	program = append(program,
		// glibc tries clone3(2) first and takes clone(2) where there is none; its flags are in memory, out of sight.
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_CLONE3, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
	)
	for _, n := range p.allowed() {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: n, SkipTrue: 1}, allow)
	}
	return bpf.Assemble(append(program, deny))
}

// allowed are the numbers of the system calls that the profile lets through whatever their arguments.
func (p Profile) allowed() []uint32 {
	return slices.Concat(append([][]uint32{runtimeCalls, archRuntimeCalls}, p.calls...)...)
}
