package confine

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// Older forms that newer architectures do not have.
var (
	archRuntimeCalls = []uint32{
		unix.SYS_ARCH_PRCTL, unix.SYS_DUP2, unix.SYS_PIPE, unix.SYS_POLL, unix.SYS_SELECT, unix.SYS_EPOLL_CREATE,
		unix.SYS_EPOLL_WAIT,
		unix.SYS_EVENTFD, unix.SYS_TIME, unix.SYS_GETPGRP, unix.SYS_PAUSE,
	}
	archFileCalls = []uint32{
		unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_NEWFSTATAT, unix.SYS_ACCESS, unix.SYS_READLINK,
		unix.SYS_GETDENTS, unix.SYS_UNLINK,
		unix.SYS_RMDIR, unix.SYS_MKDIR, unix.SYS_RENAME, unix.SYS_CHMOD, unix.SYS_INOTIFY_INIT,
	}
	archOpenerCalls = []uint32{unix.SYS_NEWFSTATAT}
)
