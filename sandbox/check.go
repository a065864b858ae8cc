package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

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
	found, err := probe()
	list := []Requirement{checkUserNS(found, err), checkTun(), checkSubordinateIDs(), checkPing()}
	if list[0].OK {
		list = append(list, checkHostname(found), checkProc(found))
	}
	return list
}

func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// unfiltered is what starts a container of another engine's so that usernet works in it.
const unfiltered = "start the container around this one with --security-opt seccomp=unconfined, or with the filter " +
	"that `usernet integrate nesting` writes"

func checkUserNS(found probed, err error) Requirement {
	r := Requirement{Name: "user namespaces", Needed: true}
	if err == nil && found.Mount != "" {
		r.Detail = "can be made, but nothing can be mounted in them: " + found.Mount
		r.Fix = unfiltered
		return r
	}
	if err == nil {
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
	case filtered():
		r.Detail += " (a filter on system calls is in force, as in containers of Docker)"
		r.Fix = unfiltered
	case errors.Is(err, unix.EPERM): // user_namespaces(7) has chroot(2) as the reason
		r.Fix = "in a chroot nobody can make them: use a container in its place; inside a container: " + unfiltered
	default:
		r.Fix = "use a kernel with CONFIG_USER_NS; inside a container: " + unfiltered
	}
	return r
}

// filtered says whether a filter on system calls is in force for this process (proc(5), Seccomp).
func filtered() bool {
	b, err := os.ReadFile("/proc/self/status")
	return err == nil && strings.Contains(string(b), "\nSeccomp:\t2\n")
}

// checkHostname is about sandboxes in containers whose filter refuses sethostname(2), as Podman's does.
func checkHostname(found probed) Requirement {
	r := Requirement{Name: "host names"}
	if found.Hostname == "" {
		r.OK, r.Detail = true, "sandboxes can have their own"
		return r
	}
	r.Detail = "cannot be set (" + found.Hostname + "): sandboxes keep this one, and --hostname is refused"
	r.Fix = unfiltered
	return r
}

// checkProc is about sandboxes in containers of whose /proc parts are covered.
func checkProc(found probed) Requirement {
	r := Requirement{Name: "a /proc for each sandbox"}
	if found.Proc == "" {
		r.OK, r.Detail = true, "can be mounted"
		return r
	}
	r.Detail = "cannot be mounted: sandboxes keep this one, which lacks their own processes; with --rootfs they need " +
		"--security-opt proc=none, and have none"
	r.Fix = "start the container around this one with --security-opt systempaths=unconfined; in Podman's words: " +
		"--security-opt unmask=ALL"
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
			"as root: modprobe tun; for a container: --device /dev/net/tun"
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
	r.Fix = `as root: sysctl net.ipv4.ping_group_range="0 2147483647"; for a container: --sysctl ` +
		`net.ipv4.ping_group_range="0 65535"`
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
