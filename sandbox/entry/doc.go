// Package entry lets a Go program enter namespaces before its runtime starts.
//
// # The central idea
//
// setns(2) into a user namespace needs a process with one thread, and a Go program has several before its first line
// runs. C programs use a constructor for such work; this package has the same in assembly, without cgo: a stage that is
// the program's entry point, takes the steps that its arguments ask for, and jumps to the entry point that the linker
// chose. Copy makes the stage the entry point of a copy of the program; the linker's choice stays as it is in the file
// that was built.
//
// The stage takes these steps, in this order:
//
//  1. prctl(PR_SET_DUMPABLE, 0), always. Nobody without power over the namespace in which the program was executed can
//     trace the process or read its /proc/PID/root, mem or fd from then on (ptrace_may_access in kernel/ptrace.c),
//     whatever it enters later; there is no execve(2) after it that would change this.
//  2. setns(2) into each of the namespaces at the descriptors from FirstNamespaceFD on.
//  3. clone(2) with CLONE_PARENT, where flags are given: the program goes on in a child whose parent is the stage's
//     parent, which a pid namespace needs, and which may get further new namespaces. The child's process id is written
//     to ControlFD, as four bytes in the machine's order. The child dies with its parent (PR_SET_PDEATHSIG).
//
// An error is for the program alone: Result returns it.
//
// The sandbox package uses it for all its roles. It never decides what is entered.
package entry
