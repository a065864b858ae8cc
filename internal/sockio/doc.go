// Package sockio has what several packages do with descriptors: duplicate one ([Dup]), and take descriptors out of the
// control messages that came over a Unix socket ([ParseRights], unix(7), SCM_RIGHTS).
//
// Every descriptor that it returns is closed on exec, and is the caller's.
package sockio
