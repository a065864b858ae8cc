// Package stores opens the key-value store that a URL names: Consul and ZooKeeper in this process, etcd in a program of
// its own.
//
// The official clients of Consul and ZooKeeper, and memberlist, cost nothing that can be measured at the start of a
// program; etcd's costs 2.7 ms (docs/overlay.md, Stores), which every `usernet ps` would pay. So cmd/usernet-etcd has
// it, `make build` puts that program into usernet, and a daemon whose cluster uses etcd starts it.
package stores

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/procname"
	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/kv/consul"
	"github.com/usernet/usernet/overlay/kv/remote"
	"github.com/usernet/usernet/overlay/kv/zookeeper"
)

// EtcdProgram returns the content of cmd/usernet-etcd, where this program carries it. Set it first thing in main. Where
// it does not, the file usernet-etcd beside this program's is started.
var EtcdProgram func() io.Reader

// etcdName is the program's name.
const etcdName = "usernet-etcd"

// controlFD is the program's end of the stream: the first of exec.Cmd.ExtraFiles.
const controlFD = 3

// Open opens a store. It does not wait for the store's servers. A confined process cannot start programs: it opens its
// store before.
func Open(l kv.Location) (kv.Store, error) {
	switch l.Scheme {
	case "consul":
		return consul.New(l)
	case "zk":
		return zookeeper.New(l)
	case "etcd":
		return openEtcd(l)
	}
	return nil, fmt.Errorf("cluster store %s: no store is called %q", l, l.Scheme)
}

// Serve is the other end: what the program for a store does from its start to its end.
func Serve(open func(kv.Location) (kv.Store, error)) error {
	procname.Set(etcdName)
	f := os.NewFile(controlFD, "control")
	conn, err := net.FileConn(f)
	if err != nil {
		return errors.New("it is started by usernet only")
	}
	return errors.Join(f.Close(), remote.Serve(conn, open))
}

// openEtcd starts the program and has it open the store.
func openEtcd(l kv.Location) (kv.Store, error) {
	program, err := etcdProgram()
	if err != nil {
		return nil, err
	}
	defer program.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	far := os.NewFile(uintptr(pair[1]), "control")
	defer far.Close()
	near := os.NewFile(uintptr(pair[0]), "control")
	conn, err := net.FileConn(near)
	if err := errors.Join(err, near.Close()); err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: fmt.Sprintf("/proc/self/fd/%d", controlFD+1), Args: []string{etcdName}, Env: []string{},
		ExtraFiles: []*os.File{far, program}, Stderr: os.Stderr,
		// It reads the end of the stream when the daemon is gone; signals of a terminal are for the daemon.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", etcdName, err), conn.Close())
	}
	p := &process{}
	p.waiting.Go(func() { _ = cmd.Wait() })
	store, err := remote.New(conn, l)
	if err != nil {
		p.waiting.Wait()
		return nil, err
	}
	p.Store = store
	return p, nil
}

// process is a store in another program, which ends with it.
type process struct {
	*remote.Store
	waiting sync.WaitGroup
}

// Close implements kv.Store.
func (p *process) Close() error {
	err := p.Store.Close()
	p.waiting.Wait()
	return err
}

// etcdProgram is the program open for reading: a file in memory, or one beside this program's.
func etcdProgram() (*os.File, error) {
	if EtcdProgram != nil {
		if image := EtcdProgram(); image != nil {
			return inMemory(image)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(filepath.Dir(self), etcdName))
	if err != nil {
		return nil, fmt.Errorf(
			"this usernet cannot speak to etcd: it was built without %s (make build): %w",
			etcdName,
			err,
		)
	}
	return f, nil
}

// inMemory is a file that cannot be changed.
func inMemory(image io.Reader) (*os.File, error) {
	// A child forked meanwhile would have the file open for writing until it executes something.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.MemfdCreate(etcdName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(etcdName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), etcdName)
	defer f.Close()
	if _, err := io.Copy(f, image); err != nil {
		return nil, err
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}
