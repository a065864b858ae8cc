package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Requirement is one thing that usernet needs, or can use, of the machine.
type Requirement struct {
	Name   string
	OK     bool
	Needed bool // false: a feature is lost without it, not all
	Detail string
	Fix    string // what to do where OK is false
}

// Check tests the machine by trying what the program will do.
func Check() []Requirement {
	return []Requirement{checkUserNS(), checkTun(), checkSubordinateIDs(), checkPing()}
}

func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func checkUserNS() Requirement {
	r := Requirement{Name: "user namespaces", Needed: true}
	cmd, err := role{name: roleInit}.command()
	if err == nil {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNET
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		err = cmd.Start()
	}
	if err == nil {
		_ = cmd.Wait() // it ends at once: it has no control socket
		r.OK, r.Detail = true, "can be made"
		if sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1" && os.Geteuid() != 0 {
			r.OK, r.Detail = false, "AppArmor takes the privileges inside them away"
			r.Fix = "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with " +
				"`userns,` for this binary"
		}
		return r
	}
	r.Detail = fmt.Sprintf("cannot be made: %v", err)
	switch {
	case sysctl("user.max_user_namespaces") == "0":
		r.Fix = "as root: sysctl user.max_user_namespaces=15000"
	case sysctl("kernel.unprivileged_userns_clone") == "0":
		r.Fix = "as root: sysctl kernel.unprivileged_userns_clone=1"
	case sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1":
		r.Fix = "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
	case errors.Is(err, unix.ENOSPC):
		r.Fix = "too many are in use: as root, raise user.max_user_namespaces and user.max_net_namespaces"
	default:
		r.Fix = "use a kernel with CONFIG_USER_NS; inside a container, one whose seccomp profile allows unshare and " +
			"clone"
	}
	return r
}

func checkTun() Requirement {
	r := Requirement{Name: "/dev/net/tun"}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		_ = unix.Close(fd)
		r.OK, r.Detail = true, "can be opened"
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		r.Detail, r.Fix = "is missing: interfaces are veth pairs with packet sockets, which are slower",
			"as root: modprobe tun; inside a container: pass the device in (--device /dev/net/tun)"
	default:
		r.Detail = fmt.Sprintf("cannot be opened (%v): interfaces are veth pairs with packet sockets, which are slower",
			err)
		r.Fix = "as root: chmod 0666 /dev/net/tun"
	}
	return r
}

func checkPing() Requirement {
	r := Requirement{Name: "ping sockets"}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err == nil {
		_ = unix.Close(fd)
		r.OK, r.Detail = true, "allowed: containers can ping what the host can"
		return r
	}
	r.Detail = "not allowed for group " + strconv.Itoa(os.Getegid()) + " (net.ipv4.ping_group_range is " + sysctl(
		"net.ipv4.ping_group_range") + "): containers can ping their gateway and each other only"
	r.Fix = `as root: sysctl net.ipv4.ping_group_range="0 2147483647"`
	return r
}

func checkSubordinateIDs() Requirement {
	r := Requirement{Name: "subordinate ids"}
	uids, _, err := subordinateIDs()
	if err != nil {
		r.Detail = "root in containers is this user, and has no other users"
		r.Fix = err.Error()
		return r
	}
	n := 0
	for _, u := range uids {
		n += u.count
	}
	r.OK, r.Detail = true, fmt.Sprintf(
		"%d: containers with --rootfs have users of their own, and root there is nobody here unless the directory is "+
			"this user's",
		n)
	return r
}
