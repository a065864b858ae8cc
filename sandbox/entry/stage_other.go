//go:build !amd64 && !arm64

package entry

// keep has nothing to keep: there is no stage for this architecture, and Copy says so.
func keep() bool { return false }
