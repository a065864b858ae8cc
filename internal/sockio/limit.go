package sockio

import "golang.org/x/sys/unix"

// FileLimit is the limit on open files that holds for this process, RLIMIT_NOFILE; 0: it is not known.
func FileLimit() uint64 {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0
	}
	return r.Cur
}

// RaiseFileLimit raises the soft limit on open files to the hard one.
func RaiseFileLimit() error {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return err
	}
	r.Cur = r.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &r)
}
