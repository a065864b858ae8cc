package rootlessport

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Main is the program: it returns the exit status, Podman's for each case. Podman shows what is on stdout then.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		fmt.Fprintln(stderr, "too many arguments, rootlessport expects a json config via STDIN")
		return 1
	}
	if err := run(stdin); err != nil {
		fmt.Fprintln(stdout, err)
		return 1
	}
	return 0
}

// run binds the ports, says so, and serves them until the exit descriptor hangs up.
func run(stdin io.Reader) error {
	c, err := readConfig(stdin)
	if err != nil {
		return err
	}
	ports, err := c.ports()
	if err != nil {
		return err
	}
	child, err := childAddr(c.ChildIP)
	if err != nil {
		return err
	}
	in, err := enter(c.NetNSPath)
	if err != nil {
		return err
	}
	p, err := publish(in, ports, child)
	if err != nil {
		return err
	}
	stopReload := func() {}
	if c.RootlessCNI {
		path := filepath.Join(c.TmpDir, "rp", c.ContainerID)
		l, err := listenReload(filepath.Dir(path), c.ContainerID)
		if err != nil {
			return errors.Join(err, p.Close())
		}
		stopReload = func() {
			_ = l.Close()
			_ = os.Remove(path)
		}
		go p.serveReload(l) // until the process ends
	}
	err = c.ready()
	if err == nil {
		exit := os.NewFile(uintptr(c.ExitFD), "exit")
		_, _ = io.Copy(io.Discard, exit) // an error is an end as well
	}
	stopReload() // before connections end: a container that starts again has its socket at the same path
	return errors.Join(err, p.Close())
}

// childAddr is the container's address; none: its loopback.
func childAddr(s string) (netip.Addr, error) {
	if s == "" {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, fmt.Errorf("invalid ChildIP %q: it is no address", s)
	}
	return a.Unmap(), nil
}

// ready tells Podman that the ports are bound. Nobody reads the standard streams from then on; what is written to them
// must not end the process.
func (c *Config) ready() error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for _, fd := range []int{unix.Stdout, unix.Stderr} {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	f := os.NewFile(uintptr(c.ReadyFD), "ready")
	_, err = f.Write([]byte("1"))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("ready descriptor %d: %w", c.ReadyFD, err)
	}
	return nil
}

// listenReload listens where Podman sends other addresses of the container, one in each connection. The directory is
// opened, as its path may be longer than a socket's (unix(7)).
func listenReload(dir, id string) (*net.UnixListener, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(dir, id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	l, err := net.ListenUnix(
		"unixpacket",
		&net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", fd, id), Net: "unixpacket"},
	)
	if err == nil {
		l.SetUnlinkOnClose(false) // by a path that leads elsewhere by then
	}
	return l, errors.Join(err, unix.Close(fd))
}

// maxReload is the longest message that has an address in it, in bytes, and room for what may come.
const maxReload = 4096

// reloadTimeout is how long Podman may take to say what it wants.
const reloadTimeout = 10 * time.Second

// serveReload takes other addresses of the container, until the listener is closed.
func (p *published) serveReload(l *net.UnixListener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // no descriptors: they come back
			continue
		}
		answer := "OK"
		if err := p.reload(c); err != nil {
			answer = err.Error()
		}
		_, _ = io.WriteString(c, answer)
		_ = c.Close()
	}
}

// reload has connections from now on lead to another address.
func (p *published) reload(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(reloadTimeout)); err != nil {
		return err
	}
	b := make([]byte, maxReload)
	n, err := c.Read(b) // one message
	if err != nil {
		return err
	}
	var s string
	if err := json.Unmarshal(b[:n], &s); err != nil {
		return fmt.Errorf("rootless port failed to decode ports: %w", err)
	}
	child, err := childAddr(s)
	if err != nil {
		return err
	}
	p.child.Store(&child)
	return nil
}
