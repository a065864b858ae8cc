//go:build !race

package sandbox

// ownEnv is the environment of this program's processes in sandboxes: none.
var ownEnv = []string{}
