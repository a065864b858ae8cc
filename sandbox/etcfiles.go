package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A sandbox's /etc/hosts, /etc/resolv.conf and /etc/hostname lie on a tmpfs of their own. The container may write to
// them, as in Docker; what it writes costs no more than etcSize of memory, no disk, and is never read by usernet. The
// process that started the sandbox holds them open from before the command runs, so that it can replace their text
// whatever the container does to their modes. The daemon sends that process new text over a socket in the container's
// directory:
//
//	daemon --- SendFiles ---> DIR/files.sock --- FileUpdates.Serve ---> Process.WriteFiles ---> tmpfs in the sandbox

// Files are texts for the sandbox's files, and its host name. "" leaves the sandbox's own as they are.
type Files struct {
	ResolvConf string
	Hosts      string
	Hostname   string // where the daemon chose it
}

const (
	// etcSize is the size in bytes of the tmpfs that holds the sandbox's hosts and resolv.conf.
	etcSize = 1 << 20
	// maxUpdate bounds an update of both files as it is sent, in bytes.
	maxUpdate = 4 << 20
	// updateTimeout bounds an update on both of its sides: writing to a tmpfs takes microseconds.
	updateTimeout = 2 * time.Second
	updatesSocket = "files.sock"
	// etcStage is where the tmpfs stands meanwhile: a directory that is there on every Linux, and that nothing needs
	// before the sandbox's own /proc is mounted.
	etcStage = "/proc"
)

// etcNames are the files of /etc that there may be a text for.
var etcNames = [...]string{"resolv.conf", "hosts", "hostname"}

// names lists the files of /etc that have a text.
func (f Files) names() []string {
	var names []string
	for _, name := range etcNames {
		if f.text(name) != "" {
			names = append(names, name)
		}
	}
	return names
}

func (f Files) text(name string) string {
	switch name {
	case "resolv.conf":
		return f.ResolvConf
	case "hosts":
		return f.Hosts
	case "hostname":
		if f.Hostname != "" {
			return f.Hostname + "\n"
		}
	}
	return ""
}

// stageEtc makes an empty file for each name on a new tmpfs at etcStage, calls mount with the path of each, and returns
// them open for writing. What mount has bound keeps the tmpfs; the caller sees to it that etcStage does not show it.
func stageEtc(names []string, mount func(path, name string) error) (files []*os.File, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	options := "mode=0755,nr_inodes=64,size=" + strconv.Itoa(etcSize)
	if err := unix.Mount("tmpfs", etcStage, "tmpfs", mountFlags, options); err != nil {
		return nil, fmt.Errorf("tmpfs for /etc/hosts and /etc/resolv.conf: %w", err)
	}
	for _, name := range names {
		path := filepath.Join(etcStage, name)
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
		if err != nil {
			return files, err
		}
		files = append(files, f)
		if err := f.Chmod(0o644); err != nil { // whatever the caller's umask
			return files, err
		}
		if err := mount(path, name); err != nil {
			return files, err
		}
	}
	return files, nil
}

// unstageEtc takes the tmpfs of stageEtc away from etcStage.
func unstageEtc(names []string) error {
	if len(names) == 0 {
		return nil
	}
	if err := unix.Unmount(etcStage, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("tmpfs for /etc/hosts and /etc/resolv.conf: %w", err)
	}
	return nil
}

// WriteFiles replaces the texts of the sandbox's files. It can be called after Proceed, from any goroutine.
func (p *Process) WriteFiles(f Files) error {
	p.etc.Lock()
	defer p.etc.Unlock()
	var errs []error
	for name, file := range p.etc.files {
		text := f.text(name)
		if text == "" {
			continue
		}
		err := file.Truncate(0)
		if err == nil {
			_, err = file.WriteAt([]byte(text), 0)
		}
		if err != nil {
			errs = append(
				errs,
				fmt.Errorf("the sandbox's /etc/%s, with %d bytes of the %d that there are room for: %w", name,
					len(text), etcSize, err),
			)
		}
	}
	return errors.Join(errs...)
}

// etcFiles are the sandbox's files that usernet writes, by name.
type etcFiles struct {
	sync.Mutex
	files map[string]*os.File
}

func (e *etcFiles) close() {
	e.Lock()
	defer e.Unlock()
	for _, f := range e.files {
		_ = f.Close()
	}
	e.files = nil
}

// FileUpdates receives what SendFiles sends.
type FileUpdates struct {
	listener *net.UnixListener
	dir      *os.File
	serves   sync.WaitGroup
}

// ListenFiles makes dir, the container's directory, where it does not exist, and a socket in it.
func ListenFiles(dir string) (*FileUpdates, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the container's directory: %w", err)
	}
	d, path, err := socketPath(dir, updatesSocket)
	if err != nil {
		return nil, err
	}
	_ = os.Remove(path) // of an earlier run that was killed
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("socket for updates of the container's /etc/hosts: %w", err)
	}
	return &FileUpdates{listener: l, dir: d}, nil
}

// socketPath names a socket in dir in few bytes, as a socket's path may have 108 (unix(7)), by the descriptor of dir,
// which the caller closes after use.
func socketPath(dir, name string) (*os.File, string, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", fmt.Errorf("the container's directory %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), dir), fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), nil
}

// Serve calls apply with each update until Close.
func (u *FileUpdates) Serve(apply func(Files) error) {
	u.serves.Go(func() {
		for {
			c, err := u.listener.AcceptUnix()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(updateTimeout))
			var f Files
			var text string
			if err := json.NewDecoder(io.LimitReader(c, maxUpdate)).Decode(&f); err != nil {
				text = err.Error()
			} else if err := apply(f); err != nil {
				text = err.Error()
			}
			_ = json.NewEncoder(c).Encode(text) // the daemon may have given up
			_ = c.Close()
		}
	})
}

// Close ends Serve and waits for it.
func (u *FileUpdates) Close() {
	_ = u.listener.Close()
	u.serves.Wait()
	_ = u.dir.Close()
}

// SendFiles has the process that listens in dir write f into its sandbox, and returns when that is done.
func SendFiles(ctx context.Context, dir string, f Files) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if len(b) > maxUpdate {
		return fmt.Errorf("hosts and resolv.conf have %d bytes; %d are possible", len(b), maxUpdate)
	}
	d, path, err := socketPath(dir, updatesSocket)
	if err != nil {
		return err
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(ctx, updateTimeout)
	defer cancel()
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("the process that started the container does not take updates: %w", err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.Write(b); err != nil {
		return err
	}
	var text string
	if err := json.NewDecoder(io.LimitReader(c, maxMessage)).Decode(&text); err != nil {
		return fmt.Errorf("the process that started the container does not answer: %w", err)
	}
	if text != "" {
		return errors.New(text)
	}
	return nil
}
