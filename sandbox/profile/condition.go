package profile

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

// Offsets in struct seccomp_data, include/uapi/linux/seccomp.h. The lower half of an argument comes first on the
// little-endian machines that there are lists for.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// condition compares an argument with a value. Where it does not hold, skip instructions after it are passed over.
//
// The kernel's machine has 32 bits, so a comparison is one of the upper halves and, where these are equal, one of the
// lower.
func condition(a specs.LinuxSeccompArg, skip int) ([]bpf.Instruction, error) {
	if a.Index > 5 {
		return nil, fmt.Errorf("seccomp profile: argument %d", a.Index)
	}
	low := bpf.LoadAbsolute{Off: offArgs + 8*uint32(a.Index), Size: 4}
	high := bpf.LoadAbsolute{Off: low.Off + 4, Size: 4}
	value := a.Value
	hi, lo := uint32(value>>32), uint32(value)
	// no is a jump to behind the rule, placed at the end of the condition; yes falls through to what follows it.
	no := bpf.Jump{Skip: uint32(skip)}
	pick := func(cond bpf.JumpTest, val uint32, ifTrue, ifFalse uint8) bpf.Instruction {
		return bpf.JumpIf{Cond: cond, Val: val, SkipTrue: ifTrue, SkipFalse: ifFalse}
	}
	switch a.Op {
	case specs.OpEqualTo:
		return []bpf.Instruction{high, pick(bpf.JumpEqual, hi, 0, 2), low, pick(bpf.JumpEqual, lo, 1, 0), no}, nil
	case specs.OpNotEqual:
		return []bpf.Instruction{high, pick(bpf.JumpEqual, hi, 0, 3), low, pick(bpf.JumpEqual, lo, 0, 1), no}, nil
	case specs.OpMaskedEqual:
		want := a.ValueTwo
		return []bpf.Instruction{
			high, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: hi}, pick(bpf.JumpEqual, uint32(want>>32), 0, 3),
			low, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: lo}, pick(bpf.JumpEqual, uint32(want), 1, 0), no,
		}, nil
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		test := bpf.JumpGreaterThan
		if a.Op == specs.OpGreaterEqual {
			test = bpf.JumpGreaterOrEqual
		}
		return []bpf.Instruction{
			high,
			pick(bpf.JumpGreaterThan, hi, 4, 0),
			pick(bpf.JumpEqual, hi, 0, 2),
			low,
			pick(test, lo, 1, 0),
			no,
		}, nil
	case specs.OpLessThan, specs.OpLessEqual:
		test := bpf.JumpLessThan
		if a.Op == specs.OpLessEqual {
			test = bpf.JumpLessOrEqual
		}
		return []bpf.Instruction{
			high,
			pick(bpf.JumpLessThan, hi, 4, 0),
			pick(bpf.JumpEqual, hi, 0, 2),
			low,
			pick(test, lo, 1, 0),
			no,
		}, nil
	}
	return nil, fmt.Errorf("seccomp profile: comparison %s is not known here", a.Op)
}
