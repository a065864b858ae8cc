package rootlessport

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Config is what Podman asks for, in JSON. Fields have the names that Podman gives them.
type Config struct {
	Mappings    []PortMapping
	NetNSPath   string // the container's network namespace
	ExitFD      int    // its hang-up ends the process
	ReadyFD     int    // is told when the ports are bound
	TmpDir      string // of Podman; the socket for reloads is in it
	ChildIP     string // the container's address; "": its loopback
	ContainerID string
	RootlessCNI bool // the container's networks may be connected and disconnected: there is a socket for reloads
}

// PortMapping is one published port, or a range of them.
type PortMapping struct {
	HostIP        string `json:"host_ip"` // "": all addresses
	ContainerPort uint16 `json:"container_port"`
	HostPort      uint16 `json:"host_port"`
	Range         uint16 `json:"range"`    // how many ports
	Protocol      string `json:"protocol"` // tcp, udp, or both with a comma
}

// maxConfig bounds what is read, in bytes: every port of both protocols one by one is less.
const maxConfig = 32 << 20

// readConfig reads and checks what Podman asks for.
func readConfig(r io.Reader) (*Config, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxConfig))
	if err != nil {
		return nil, err
	}
	c := new(Config)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, err
	}
	switch {
	case c.NetNSPath == "":
		return nil, errors.New("missing NetNSPath")
	case c.ExitFD <= 0:
		return nil, errors.New("missing ExitFD")
	case c.ReadyFD <= 0:
		return nil, errors.New("missing ReadyFD")
	case c.RootlessCNI && (c.TmpDir == "" || c.ContainerID == "" || strings.ContainsRune(c.ContainerID, '/')):
		return nil, errors.New("missing TmpDir or ContainerID")
	}
	for _, fd := range []int{c.ExitFD, c.ReadyFD} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, fmt.Errorf("descriptor %d is not open: %w", fd, err)
		}
		unix.CloseOnExec(fd)
	}
	return c, nil
}

// port is one port to be bound.
type port struct {
	proto     string // tcp or udp
	host      netip.AddrPort
	container uint16
}

// String is the port as net.Listen's errors name it.
func (p port) String() string { return p.proto + " " + p.host.String() }

// ports are the mappings one by one.
func (c *Config) ports() ([]port, error) {
	var list []port
	for _, m := range c.Mappings {
		host := netip.IPv4Unspecified() // which stands for all addresses, of both families
		if m.HostIP != "" {
			a, err := netip.ParseAddr(m.HostIP)
			if err != nil {
				return nil, fmt.Errorf("invalid host IP %q: it is no address", m.HostIP)
			}
			host = a
		}
		for proto := range strings.SplitSeq(m.Protocol, ",") {
			if !slices.Contains([]string{"tcp", "udp"}, proto) {
				return nil, fmt.Errorf(
					"protocol %q cannot be published: unprivileged host sockets carry tcp and udp",
					proto,
				)
			}
			for i := range uint32(m.Range) {
				from, to := uint32(m.HostPort)+i, uint32(m.ContainerPort)+i
				if from == 0 || to == 0 || from > 65535 || to > 65535 {
					return nil, fmt.Errorf("invalid port mapping %d:%d: ports are 1 to 65535", from, to)
				}
				list = append(list, port{proto, netip.AddrPortFrom(host, uint16(from)), uint16(to)})
			}
		}
	}
	return list, nil
}
