//go:build amd64 || arm64

package entry

// stage is the entry point, in assembly. It cannot be called.
func stage()

var stageReference = stage

// keep refers to the stage, which the linker would leave out otherwise.
//
//go:noinline
func keep() bool { return stageReference != nil }
