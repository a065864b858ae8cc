// Package sandbox makes and enters Linux namespaces.
//
// # The central idea
//
// A multi-threaded process cannot enter a user namespace, and every Go program is multi-threaded. What has to happen
// inside a sandbox is therefore done by a program that is started in a role: as the init of a sandbox that Start makes
// with clone flags, as a short-lived agent that Configure sends in, or as what becomes the command of Exec. The last
// two enter namespaces before their Go runtime starts (package entry). The program is a sealed copy in memory of
// Program, or of the one that runs: no executable of the host's is that of a process in a sandbox. An agent makes TAPs,
// addresses, routes and DNS sockets, and passes their descriptors out over a socket (SCM_RIGHTS, unix(7)). Other
// packages have agents of their own (Role): the factory of package bypass is one.
//
// # A sandbox's first process
//
// PID 1 sets up the sandbox (runInit): mounts, /dev, names, files of /etc. It hands the process that started it what
// that one keeps, moves to a copy of its mount namespace in which the mounts are locked (lockMounts), and executes
// itself again as the parent of the command (runCommand), which it starts from a thread that has the command's Limits.
// The ids of the user namespace are chosen before all that (mapsFor).
//
// A program that uses the package calls Main first thing:
//
//	func main() {
//		sandbox.Main()
//		...
//	}
//
// The daemon calls Configure and Wait; the commands call Start, Exec and Check. Nothing here decides addresses or
// names.
package sandbox
