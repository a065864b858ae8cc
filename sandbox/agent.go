package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockdiag"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/sandbox/entry"
	"github.com/usernet/usernet/switch/tap"
)

// runAgent is the agent: one request, one answer, end.
func runAgent() error {
	c, err := unixConn(controlFD)
	if err != nil {
		return fmt.Errorf("agent without a control socket: %w", err)
	}
	defer c.Close()
	if err := entry.Result(); err != nil {
		return err
	}
	buf := make([]byte, maxMessage)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	var r Request
	if err := json.Unmarshal(buf[:n], &r); err != nil {
		return err
	}
	if len(r.Try) > 0 {
		return send(c, answer{Tried: tryAll(r.Try)}, nil)
	}
	var a answer
	files, err := carryOut(r)
	if err != nil {
		a.Error = err.Error()
		files = nil
	}
	var fds []int
	for _, f := range files {
		a.Files = append(a.Files, f.name)
		fds = append(fds, int(f.file.Fd()))
	}
	return send(c, a, fds)
}

// send sends a message and the descriptors that come with it.
func send(c *net.UnixConn, a any, fds []int) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = sockio.WriteRights(c, b, fds...)
	return err
}

type namedFile struct {
	name string
	file *os.File
}

// carryOut does what r asks for, in the network namespace this process is in. On an error it removes the interfaces
// that it has made.
func carryOut(r Request) (files []namedFile, err error) {
	if !r.onlyGiven() {
		if err := loopbackUp(); err != nil {
			return nil, err
		}
	}
	if err := localAddresses(r.Local, r.RemoveLocal); err != nil {
		return nil, err
	}
	if err := removeInterfaces(r.Remove); err != nil {
		return nil, err
	}
	var made []string
	defer func() {
		if err != nil {
			_ = removeInterfaces(made) // the first error says more
		}
	}()
	for _, i := range r.Add {
		f, isNew, err := makeInterface(i)
		if isNew {
			made = append(made, i.Name)
		}
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if r.Congestion.Host != "" && len(r.Add) > 0 {
		r.Congestion.set(made)
	}
	if !r.onlyGiven() && !r.onlySockets() {
		if err := setDefaultRoutes(r.DefaultRoutes); err != nil {
			return nil, err
		}
		if err := setRoutes(r.Routes); err != nil {
			return nil, err
		}
	}
	sockets, err := openSockets(r)
	if err != nil {
		return nil, err
	}
	if r.NoDNSStub {
		if err := removeRedirect(); err != nil {
			return nil, fmt.Errorf("DNS stub: %w", err)
		}
	}
	if r.DNSStub.IsValid() {
		stub, err := listenDNS(r.DNSStub)
		if err != nil {
			return nil, err
		}
		sockets = append(sockets, stub...)
	}
	return append(files, sockets...), nil
}

// removeInterfaces removes the interfaces that exist of those names. It tries all of them.
func removeInterfaces(names []string) error {
	var errs []error
	for _, name := range names {
		link, err := netlink.LinkByName(name)
		if err != nil {
			continue
		}
		if err := netlink.LinkDel(link); err != nil {
			errs = append(errs, fmt.Errorf("interface %s: remove: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// makeInterface makes a TAP, or opens the one that exists, and sets it up unless others do. isNew says that the
// interface did not exist before, also where setting it up fails.
func makeInterface(i Interface) (f namedFile, isNew bool, err error) {
	_, missing := netlink.LinkByName(i.Name)
	dev, err := tap.Create(i.Name, i.MAC, i.MTU, tap.Options{
		Offload: i.Offload, Persist: i.stays() && missing == nil, // a new one goes with us, until Configure has it
	})
	if errors.Is(err, unix.EBUSY) {
		return f, false, fmt.Errorf(
			"interface %s is in use in this sandbox already, by another usernet or another tool", i.Name)
	}
	if err != nil {
		return f, false, err
	}
	if !i.Given {
		if err := setUp(i); err != nil {
			return f, missing != nil, fmt.Errorf("interface %s: %w", i.Name, err)
		}
	}
	return namedFile{i.Name, dev}, missing != nil, nil
}

// openSockets opens the sockets that r asks for, but those of a DNS stub.
func openSockets(r Request) (files []namedFile, err error) {
	if r.SockDiag {
		fd, err := sockdiag.Open()
		if err != nil {
			return nil, err
		}
		files = append(files, namedFile{fileSockDiag, os.NewFile(uintptr(fd), fileSockDiag)})
	}
	for _, s := range []struct {
		count, kind  int
		name4, name6 string
	}{
		{r.StreamSockets, unix.SOCK_STREAM, fileStream4, fileStream6},
		{r.DatagramSockets, unix.SOCK_DGRAM, fileDatagram4, fileDatagram6},
	} {
		for family, name := range map[int]string{unix.AF_INET: s.name4, unix.AF_INET6: s.name6} {
			made, err := unconnected(s.count, family, s.kind, name)
			if err != nil {
				return nil, err
			}
			files = append(files, made...)
		}
	}
	for _, at := range r.Listen {
		f, err := listenTCP(at)
		if err != nil {
			return nil, err
		}
		if f != nil {
			files = append(files, namedFile{fileListener, f})
		}
	}
	for _, at := range r.ListenPacket {
		f, err := listenUDP(at)
		if err != nil {
			return nil, err
		}
		if f != nil {
			files = append(files, namedFile{filePacket, f})
		}
	}
	return files, nil
}

// unconnected makes sockets; none where there is no such family.
func unconnected(count, family, kind int, name string) (files []namedFile, err error) {
	for range count {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			break
		}
		if err != nil {
			for _, f := range files {
				_ = f.file.Close()
			}
			return nil, os.NewSyscallError("socket", err)
		}
		files = append(files, namedFile{name, os.NewFile(uintptr(fd), name)})
	}
	return files, nil
}

// listenTCP makes a socket that listens in this network namespace, or none where the sandbox cannot have that.
func listenTCP(at netip.AddrPort) (*os.File, error) {
	var cfg net.ListenConfig
	l, err := cfg.Listen(context.Background(), "tcp", at.String())
	if cannotHave(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listening at %s: %w", at, err)
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}

// listenUDP makes a socket that receives in this network namespace, or none where the sandbox cannot have that.
func listenUDP(at netip.AddrPort) (*os.File, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if cannotHave(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("receiving at %s: %w", at, err)
	}
	defer c.Close()
	return c.File()
}
