package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/usernet/usernet/network"
)

// lockWait is how long Open waits for another process to give the file up: a daemon that is just ending.
const lockWait = 2 * time.Second

// lockRetry is how often it tries meanwhile. flock(2) can wait, but not for a limited time.
const lockRetry = 20 * time.Millisecond

// DB is an open file. Its methods may be called at the same time. Make it with Open.
type DB struct {
	path string
	bolt *bolt.DB // owns file
	file *os.File

	log network.ChangeLog

	mu       sync.Mutex // one change at a time; guards the rest
	revision network.Revision
	broken   error // why nothing is read or written any more; nil: it is
}

// Open opens the file at path, making it where it is missing. It fails with network.ErrLocked where another process has
// it open, and with network.ErrDamaged where it makes no sense.
func Open(path string) (*DB, error) {
	f, err := lock(path)
	if err != nil {
		return nil, err
	}
	if err := checkFile(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	d := &DB{path: path, file: f}
	err = guarded(func() error {
		d.bolt, err = bolt.Open(path, 0o600, &bolt.Options{
			// The file that is locked and was read is the one to be used, whatever is at path now. bbolt owns it from
			// here, and closes it where it fails.
			OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f, nil },
			Timeout:  lockWait,
		})
		return err
	})
	if err != nil {
		giveUp(f) // bbolt has closed it, unless it panicked
		var errno syscall.Errno
		if errors.As(err, &errno) && errno != syscall.EINVAL {
			// the disk is full, or fails; EINVAL is bbolt's and mmap's for a bad size
			return nil, fmt.Errorf("state %s cannot be used: %w", path, err)
		}
		return nil, d.Damaged(err)
	}
	err = d.View(context.Background(), func(t network.Tx) error {
		d.revision = t.Revision()
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.log.Start(d.revision)
	return d, nil
}

// OpenModel opens the model that is stored in the file at path. Closing the model closes the file.
func OpenModel(path string, opts network.Options) (*network.Model, error) {
	d, err := Open(path)
	if err != nil {
		return nil, err
	}
	m, err := network.Open(d, opts)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return m, nil
}

// lock opens the file at path and locks it against other processes (flock(2), as bbolt does).
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state %s cannot be opened: %w", path, err)
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockRetry) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("state %s cannot be locked: %w", path, err), f.Close())
		case time.Now().After(deadline):
			return nil, errors.Join(
				fmt.Errorf("%w (%s): stop it, or give this one another --state-dir", network.ErrLocked, path),
				f.Close())
		}
	}
}

// giveUp closes a file that bbolt may have mapped and does not unmap any more. A mapping keeps flock(2)'s lock, which
// has to be given up first.
func giveUp(f *os.File) {
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _ = syscall.Flock(int(fd), syscall.LOCK_UN) })
	}
	_ = f.Close()
}

// guarded calls f, and makes an error of a panic and of an access to memory that is not there: bbolt maps the file, and
// has what is past its end read as such (SIGBUS).
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return f()
}

// Path is the path that Open was given.
func (d *DB) Path() string { return d.path }

// NoSync leaves it to the kernel when changes reach the disk. It is for benchmarks: a crash of the machine may damage
// the file.
func (d *DB) NoSync() { d.bolt.NoSync = true }

// run has do, one of bbolt's, call f. After the file turned out to be damaged nothing is read or written any more. The
// caller holds mu.
func (d *DB) run(do func(func(*bolt.Tx) error) error, f func(*bolt.Tx) error) error {
	var own error // f's, which says nothing of the file
	err := guarded(func() error {
		return do(func(tx *bolt.Tx) error {
			own = f(tx)
			return own
		})
	})
	if own != nil || err == nil {
		return own
	}
	var errno syscall.Errno
	if errors.As(err, &errno) { // the disk is full, or fails: nothing was changed, and the next time may do
		return fmt.Errorf("state %s cannot be written: %w", d.path, err)
	}
	d.broken = d.Damaged(err)
	return d.broken
}

// Close closes the file and gives its lock up, also where the file turned out to be damaged.
func (d *DB) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		giveUp(d.file) // bbolt may hold locks of its own for ever
		return nil
	}
	return guarded(d.bolt.Close)
}
