// Package sandbox makes and enters Linux namespaces.
//
// # The central idea
//
// A multi-threaded process cannot enter a user namespace, and every Go program is multi-threaded. What has to happen
// inside a sandbox is therefore done by this same binary, started again in a role: as the init of a sandbox that Start
// makes with clone flags, or, through nsenter (util-linux), as a short-lived agent that Configure sends in. The agent makes
// TAPs, addresses, routes and DNS sockets, and passes their descriptors out over a socket (SCM_RIGHTS, unix(7)). So does the
// maker of the sockets by which connections pass the TAPs by (Sockets), for as long as they are in demand.
//
// A program that uses the package calls Main first thing:
//
//	func main() {
//		sandbox.Main()
//		...
//	}
//
// The daemon calls Configure and Wait; the commands call Start, Exec and Check. Nothing here decides addresses or names.
package sandbox
