//go:build !race

package sandbox

// ownEnv is the environment of this program's processes in sandboxes. They do one thing after the other, most of them
// for a few milliseconds: with one processor, the Go runtime starts fewer threads, and does not look for the limit of a
// cgroup.
var ownEnv = []string{"GOMAXPROCS=1"}
