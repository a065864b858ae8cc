package tap

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"
)

const clonePath = "/dev/net/tun"

// Options says what kind of TAP to make.
type Options struct {
	// Offload makes a TAP that carries super-frames, if the kernel can; else a plain one.
	Offload bool
	// Persist lets the TAP and its configuration outlive its descriptor. Without it a TAP that exists stays as it is.
	Persist bool
	// Veth makes a veth pair with a packet socket, which is otherwise the way only where /dev/net/tun cannot be opened.
	Veth bool
}

// Create makes a TAP in the network namespace of the caller, or opens a persistent one of that name again, and sets
// its MAC and MTU (0: leaves it). The interface is left down. An empty name lets the kernel choose.
func Create(name string, mac net.HardwareAddr, mtu int, opts Options) (*os.File, error) {
	if !opts.Veth {
		opts.Veth = name != "" && unusableTUN(access())
	}
	if opts.Veth {
		if len(name) >= unix.IFNAMSIZ {
			return nil, fmt.Errorf("interface %q: a name has at most %d characters", name, unix.IFNAMSIZ-1)
		}
		f, err := createVeth(name, mac, mtu)
		if err != nil {
			return nil, errors.Join(err, access()) // what to do about the TAP is the better advice
		}
		return f, nil
	}
	f, err := create(name, opts)
	if err != nil {
		return nil, err
	}
	if err := configure(f, mac, mtu); err != nil {
		return nil, errors.Join(fmt.Errorf("TAP %s: %w", name, err), f.Close())
	}
	return f, nil
}

func create(name string, opts Options) (*os.File, error) {
	if len(name) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("TAP %q: an interface name has at most %d characters", name, unix.IFNAMSIZ-1)
	}
	if opts.Offload {
		f, err := createOffloaded(name, opts.Persist)
		if !errors.Is(err, errNoOffload) {
			return f, err
		}
	}
	return createPlain(name, opts.Persist)
}

// createPlain opens a TAP without virtio header.
func createPlain(name string, persist bool) (*os.File, error) {
	if err := access(); err != nil {
		return nil, err
	}
	ifc, err := water.New(water.Config{
		DeviceType:             water.TAP,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name, Persist: persist},
	})
	if err != nil {
		return nil, explain(name, err)
	}
	f, ok := ifc.ReadWriteCloser.(*os.File)
	if !ok {
		return nil, errors.Join(fmt.Errorf("TAP %s: not opened as a file", name), ifc.Close())
	}
	if err := noOffload(f); err != nil {
		return nil, errors.Join(explain(name, err), f.Close())
	}
	return f, nil
}

// createOffloaded opens a TAP with virtio headers. It returns errNoOffload where the kernel has none.
func createOffloaded(name string, persist bool) (f *os.File, err error) {
	fd, err := openClone()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd) // the first error says more
		}
	}()
	if err := attach(fd, name); err != nil {
		return nil, explain(name, err)
	}
	if err := setOffload(fd); err != nil {
		return nil, err
	}
	if persist {
		if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
			return nil, explain(name, fmt.Errorf("make persistent: %w", err))
		}
	}
	return os.NewFile(uintptr(fd), clonePath), nil
}

// access says what to do where the clone device cannot be opened.
func access() error {
	fd, err := openClone()
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func openClone() (int, error) {
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return -1, fmt.Errorf(
			"open %s: %w: load the kernel's module (as root: modprobe tun), or give the container that usernet runs in this device",
			clonePath,
			err,
		)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return -1, fmt.Errorf(
			"open %s: %w: let every user open it, as distributions do (as root: chmod 0666 %s)",
			clonePath,
			err,
			clonePath,
		)
	}
	return -1, fmt.Errorf("open %s: %w", clonePath, err)
}

// explain adds what the usual errors of TUNSETIFF mean.
func explain(name string, err error) error {
	switch {
	case errors.Is(err, errNoOffload):
		return err
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("TAP %s: %w: another process has it open, or an interface of that name exists", name, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("TAP %s: %w: needs CAP_NET_ADMIN in the sandbox's user namespace", name, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("TAP %s: %w: an interface of that name exists and is no TAP", name, err)
	}
	return fmt.Errorf("TAP %s: %w", name, err)
}
