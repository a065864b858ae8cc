//go:build amd64 || arm64

package confine

import "golang.org/x/sys/unix"

// The profiles. A daemon carries traffic and keeps a store; the helper starts agents, which enter network namespaces
// and make interfaces, rules and sockets there (they inherit its profile); the opener opens namespaces for it.
var (
	Daemon = Profile{
		name: "the daemon", measures: All, calls: [][]uint32{fileCalls, archFileCalls, socketCalls},
		families: []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK},
	}
	Helper = Profile{
		name: "the daemon's helper", measures: All, children: true,
		calls: [][]uint32{
			{unix.SYS_SETNS, unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_SETSID},
			fileCalls, archFileCalls, socketCalls,
		},
		families: []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET},
	}
	Opener = Profile{
		name: "the daemon's opener", measures: []Measure{NoNewPrivileges, NotDumpable, Seccomp}, readOnly: true,
		calls: [][]uint32{
			{
				unix.SYS_FSTAT, unix.SYS_FSTATFS, unix.SYS_STATX, unix.SYS_READLINKAT, unix.SYS_SOCKETPAIR,
				unix.SYS_SENDMSG,
				unix.SYS_RECVMSG, unix.SYS_GETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_SHUTDOWN,
			},
			archOpenerCalls,
		},
	}
)

// The lists hold the numbers of what these processes, the Go runtime and (where the program is linked with it) glibc
// call, with neighbours that a later version may take instead. Not among them is whatever mounts, traces, loads code
// into the kernel or changes who the process is. They are joined where a filter is made (Profile.allowed): joined
// here, they would be so at every start of the program.
var (
	runtimeCalls = []uint32{
		// Memory.
		unix.SYS_BRK, unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MREMAP, unix.SYS_MADVISE,
		unix.SYS_MINCORE,
		unix.SYS_MSYNC, unix.SYS_MLOCK, unix.SYS_MUNLOCK, unix.SYS_MEMFD_CREATE, unix.SYS_MEMBARRIER,
		unix.SYS_GET_MEMPOLICY,
		// Threads, signals and time.
		unix.SYS_FUTEX, unix.SYS_SET_ROBUST_LIST, unix.SYS_GET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_SET_TID_ADDRESS,
		unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_SETAFFINITY, unix.SYS_GETTID, unix.SYS_TGKILL,
		unix.SYS_TKILL,
		unix.SYS_KILL, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGPENDING,
		unix.SYS_RT_SIGTIMEDWAIT, unix.SYS_RT_SIGSUSPEND, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_SIGALTSTACK,
		unix.SYS_RESTART_SYSCALL,
		unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES,
		unix.SYS_GETTIMEOFDAY,
		unix.SYS_SETITIMER, unix.SYS_GETITIMER, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_GETTIME,
		unix.SYS_TIMER_DELETE,
		unix.SYS_TIMERFD_CREATE, unix.SYS_TIMERFD_SETTIME, unix.SYS_TIMERFD_GETTIME, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
		// This process and others.
		unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETPGID, unix.SYS_GETSID, unix.SYS_GETUID, unix.SYS_GETEUID,
		unix.SYS_GETGID, unix.SYS_GETEGID,
		unix.SYS_GETRESUID, unix.SYS_GETRESGID, unix.SYS_GETGROUPS, unix.SYS_CAPGET, unix.SYS_GETRLIMIT,
		unix.SYS_SETRLIMIT, unix.SYS_PRLIMIT64,
		unix.SYS_GETRUSAGE, unix.SYS_TIMES, unix.SYS_SYSINFO, unix.SYS_UNAME, unix.SYS_GETCPU, unix.SYS_GETRANDOM,
		unix.SYS_PRCTL,
		unix.SYS_WAIT4, unix.SYS_WAITID, unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL,
		// Descriptors and waiting.
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64,
		unix.SYS_PREADV, unix.SYS_PWRITEV,
		unix.SYS_CLOSE, unix.SYS_CLOSE_RANGE, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_FCNTL, unix.SYS_IOCTL,
		unix.SYS_PIPE2, unix.SYS_EVENTFD2,
		unix.SYS_SPLICE, unix.SYS_TEE, unix.SYS_VMSPLICE, unix.SYS_SENDFILE, unix.SYS_COPY_FILE_RANGE,
		unix.SYS_SIGNALFD4,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_PPOLL,
		unix.SYS_PSELECT6,
	}
	fileCalls = []uint32{
		unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_FSTATFS, unix.SYS_STATFS,
		unix.SYS_STATX, unix.SYS_GETDENTS64,
		unix.SYS_READLINKAT, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_GETCWD, unix.SYS_FSYNC,
		unix.SYS_FDATASYNC, unix.SYS_SYNC_FILE_RANGE,
		unix.SYS_FTRUNCATE, unix.SYS_TRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FADVISE64, unix.SYS_FLOCK, unix.SYS_UMASK,
		unix.SYS_FCHMOD, unix.SYS_FCHMODAT,
		unix.SYS_UTIMENSAT, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT, unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_RENAMEAT,
		unix.SYS_RENAMEAT2,
		unix.SYS_INOTIFY_INIT1, unix.SYS_INOTIFY_ADD_WATCH, unix.SYS_INOTIFY_RM_WATCH,
	}
	// socket(2) itself depends on the family.
	socketCalls = []uint32{
		unix.SYS_SOCKETPAIR, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_CONNECT,
		unix.SYS_SHUTDOWN,
		unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_SENDMMSG, unix.SYS_RECVMMSG,
		unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME,
	}
)
