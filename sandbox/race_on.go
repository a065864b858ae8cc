//go:build race

package sandbox

// ownEnv is the environment of this program's processes in sandboxes. The race detector has each of them wait a second
// at its end unless it is told not to.
var ownEnv = []string{"GORACE=atexit_sleep_ms=0"}
