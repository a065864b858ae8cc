package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"github.com/usernet/usernet/daemon"
)

// A job that is written down has all that a container needs to run again: its command, the environment, what it is
// limited to. The file is private to the user, lies where a confined daemon cannot write, and goes with the container.

// maxJob bounds a job's file, in bytes: a command and an environment have 2 MiB at most in Linux (MAX_ARG_STRLEN and
// ARG_MAX), JSON may make six bytes of one, and a profile of system calls comes with it.
const maxJob = 32 << 20

// save writes the job down.
func (j *job) save() error {
	dir := daemon.JobsDir(j.StateDir)
	if !idForm().MatchString(j.Container.ID) { // it is the daemon's word
		return fmt.Errorf("how the container runs cannot be written down: %.64q is no container's id", j.Container.ID)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("how the container runs cannot be written down: %w", err)
	}
	if !private(dir) {
		return fmt.Errorf("%s is not private to this user: what is in it would be run", dir)
	}
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return writeInState(filepath.Join(dir, j.Container.ID), b)
}

// lockWait is how long a run of a container waits for the one before, which has ended and is about to leave.
const lockWait = 10 * time.Second

// lock makes this process the only one that runs the container, until unlock. A daemon that dies while a container
// starts leaves its next one with no sign of that, which has the container started once more: two monitors would then
// listen at one place. A container that was not written down has nothing that starts it again.
func (j *job) lock(wait time.Duration) (unlock func(), err error) {
	path := filepath.Join(daemon.JobsDir(j.StateDir), j.Container.ID)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return func() {}, nil
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return sync.OnceFunc(func() { _ = f.Close() }), nil
		case !errors.Is(err, syscall.EWOULDBLOCK): // NFS, where a lock wants more of the file
			_ = f.Close()
			return func() {}, nil
		case time.Since(began) >= wait:
			return nil, errors.Join(fmt.Errorf("container %s is run by another process", j.Container.Name), f.Close())
		}
	}
}

// writeInState writes a file of the state, of mode 0600. A link is an error: a confined daemon that was taken over can
// make one to what is closed to it.
func writeInState(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// idForm are the ids of containers: nothing else leads to a job's file.
var idForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{64}$`) })

// loadJob reads the job of a container.
func loadJob(stateDir, id string) (*job, error) {
	if !idForm().MatchString(id) {
		return nil, fmt.Errorf("%.64q is no container's id", id)
	}
	dir := daemon.JobsDir(stateDir)
	if !private(dir) {
		return nil, fmt.Errorf("%s is not private to this user: nothing in it is run", dir)
	}
	f, err := os.OpenFile(filepath.Join(dir, id), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("how the container was run is not known any more: `usernet run` makes a new one")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxJob))
	if err != nil {
		return nil, err
	}
	j := new(job)
	if err := json.Unmarshal(b, j); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if j.Container == nil || j.Container.ID != id {
		return nil, fmt.Errorf("%s is about another container", f.Name())
	}
	return j, nil
}
