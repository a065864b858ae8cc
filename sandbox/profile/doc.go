// Package profile makes what limits the command of a sandbox: the filter on its system calls, from Docker's default
// profile or one of the same form, and its capabilities.
//
// # The central idea
//
// A profile is data: Docker's is taken from the module that Docker takes it from, as rules by name. It is compiled
// here, outside of the sandbox, to a program for the kernel (seccomp(2)), which the sandbox's init only loads:
//
//	caps, err := profile.Capabilities(add, drop)
//	filter, err := profile.Default(caps)
//
// The commands run and exec use it. It never loads a filter itself.
package profile
