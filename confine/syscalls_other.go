//go:build !amd64 && !arm64

package confine

const auditArch = 0

var systemCalls []uint32
