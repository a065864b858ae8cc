package confine

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

var (
	archRuntimeCalls []uint32
	archFileCalls    = []uint32{unix.SYS_FSTATAT}
	archOpenerCalls  = []uint32{unix.SYS_FSTATAT}
)
