// Package cgroup limits containers by control groups of version 2 (cgroups(7), "Delegation"), without privileges.
//
// # The central idea
//
// A user may limit processes where somebody who owns the machine's cgroups has delegated one to the user: systemd, with
// Delegate=yes in a unit, or an administrator, who gave a directory of /sys/fs/cgroup away. Take finds that cgroup and
// divides it:
//
//	DELEGATED/               controllers are enabled here, so that no process may be here itself
//	├── daemon/              the daemon, and what it has started
//	└── container-ID/        the limits of a container
//	    └── inside/          its processes; the root of its cgroup namespace
//
// The limits are one level above what the container's cgroup namespace shows: what runs in it can neither change them
// nor leave. That holds for processes of every user id, and where cgroups are mounted without the option nsdelegate
// (cgroups(7)) too.
//
// A container's first process starts in the container's cgroup (clone3(2), CLONE_INTO_CGROUP). Its parent has to be in
// the delegated cgroup itself: the kernel asks for write permission in the lowest cgroup that is above both. Package
// sandbox does that; this package makes the cgroups, writes limits, measures, and removes them.
//
//	tree, err := cgroup.Take()
//	group, err := tree.Make(id, cgroup.Limits{Memory: 64 << 20})
//	... start a process in group.Inside()
//	usage, err := group.Usage()
//	err = group.Remove(ctx)
package cgroup
