package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/confine"
	"github.com/usernet/usernet/sandbox/entry"
)

// The helper of a confined daemon is two processes, since Landlock closes the namespaces of all processes outside of
// its domain to a process (hook_ptrace_access_check, security/landlock/task.c), so that who opens them cannot have it:
//
//	daemon --- request ---> helper --- target ---> opener
//	                          | starts     descriptors of two namespaces
//	                        agent, enters these
//
// The opener opens namespaces and nothing else: what is not one is never opened for reading, and its filter on system
// calls has no sockets, programs, processes or writing to files. The helper and its agents have Landlock and such a
// filter, and may open of all files /dev/net/tun and settings below /proc/sys alone for writing.

// openerFD is the helper's end of the opener's socket.
const openerFD = entry.FirstNamespaceFD

// openRequest asks for the namespaces of a target, or where Pid is set, which namespaces that process is in, or where
// Path is set, which namespace is there.
type openRequest struct {
	Target Target
	Pid    int    `json:",omitempty"`
	Path   string `json:",omitempty"`
}

// openReply is what the opener answers; the descriptors come with it.
type openReply struct {
	Error  string `json:",omitempty"`
	Inside Namespaces

	Namespace NamespaceID
	Missing   bool `json:",omitempty"` // there is nothing at the path
}

// runOpener opens namespaces on request until the other end of its socket is closed.
func runOpener() error {
	useAllProcessors()
	c, err := unixConn(controlFD)
	if err != nil {
		return fmt.Errorf("opener without a control socket: %w", err)
	}
	defer c.Close()
	confine.Opener.Apply(confine.Paths{})
	return serveRequests(c, func(body []byte, answer *net.UnixConn, _ []*os.File) {
		var q openRequest
		var r openReply
		err := json.Unmarshal(body, &q)
		var files []*os.File
		switch {
		case err != nil:
		case q.Pid != 0:
			r.Inside, err = namespacesOf(q.Pid)
		case q.Path != "":
			r.Namespace.Dev, r.Namespace.Ino, err = namespace(q.Path)
			r.Missing = errors.Is(err, os.ErrNotExist)
		default:
			files, err = q.Target.open()
		}
		defer closeAll(files)
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		if err != nil {
			r.Error = err.Error()
		}
		_ = send(answer, r, fds) // the requester may be gone
	})
}

// open has the opener, at the other end of c, open t's namespaces.
func (c *requester) open(t Target) ([]*os.File, error) {
	answer, err := c.request(openRequest{Target: t})
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	var r openReply
	files, err := receive(answer, &r)
	if err != nil {
		return nil, err
	}
	if r.Error != "" || len(files) == 0 {
		closeAll(files)
		return nil, errors.New(r.Error)
	}
	return files, nil
}

// OpenNetNS opens a network namespace by its path. What is no network namespace is refused, and nothing waits for it: a
// pipe of that name may be opened by nobody else. Errors of the path are those of os.Open.
func OpenNetNS(path string) (*os.File, error) { return openNamespace(path, unix.CLONE_NEWNET) }

// openNamespace opens a namespace of a kind, CLONE_NEWNET or CLONE_NEWUSER, by its path. What is there is looked at
// before it is opened for reading, so that nothing happens to files, devices and pipes of that name.
func openNamespace(path string, kind int) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if fs.Type != unix.NSFS_MAGIC {
		return nil, fmt.Errorf("%s is not a namespace", path)
	}
	f, err := os.Open(filepath.Join("/proc/self/fd", fmt.Sprint(fd)))
	if err != nil {
		return nil, err
	}
	switch is, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); {
	case err != nil:
		return nil, errors.Join(os.NewSyscallError("NS_GET_NSTYPE", err), f.Close())
	case is != kind:
		kinds := map[int]string{unix.CLONE_NEWNET: "network", unix.CLONE_NEWUSER: "user"}
		err = fmt.Errorf("%s is another kind of namespace, not a %s namespace", path, kinds[kind])
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// namespace has the opener look which namespace is at a path: links below /proc lead to those of processes.
func (c *requester) namespace(path string) (dev, ino uint64, err error) {
	answer, err := c.request(openRequest{Path: path})
	if err != nil {
		return 0, 0, err
	}
	defer answer.Close()
	var r openReply
	files, err := receive(answer, &r)
	closeAll(files)
	switch {
	case err != nil:
	case r.Missing:
		err = fmt.Errorf("namespace %s: %w", path, os.ErrNotExist)
	case r.Error != "":
		err = errors.New(r.Error)
	}
	return r.Namespace.Dev, r.Namespace.Ino, err
}
