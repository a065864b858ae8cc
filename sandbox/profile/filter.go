package profile

import (
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The numbers of system calls by name, as golang.org/x/sys/unix has them.
//
//go:embed syscalls
var numbers embed.FS

// An arch is an architecture whose system calls the kernel takes from a program.
type arch struct {
	file  string
	audit uint32 // AUDIT_ARCH_* in seccomp_data
}

// arches are those of programs that run on a machine, its own first.
var arches = map[string][]arch{
	"amd64": {{"amd64", unix.AUDIT_ARCH_X86_64}, {"386", unix.AUDIT_ARCH_I386}},
	"arm64": {{"arm64", unix.AUDIT_ARCH_AARCH64}, {"arm", unix.AUDIT_ARCH_ARM}},
}

// x32 is set in the numbers of calls of the x32 ABI, which have the audit architecture of amd64 (__X32_SYSCALL_BIT).
// Nobody has programs for it.
const x32 = 0x40000000

// Default is Docker's default filter for a container with these capabilities, which besides refuses to type on a
// terminal (TIOCSTI, CVE-2017-5226).
func Default(caps Set) ([]byte, error) {
	p, err := seccomp.GetDefaultProfile(spec(caps))
	if err != nil {
		return nil, err
	}
	p.Syscalls = append([]specs.LinuxSyscall{{
		Names:  []string{"ioctl"},
		Action: specs.ActErrno,
		// The kernel looks at the lower half of the request only.
		Args: []specs.LinuxSeccompArg{{Index: 1, Value: 0xffffffff, ValueTwo: unix.TIOCSTI, Op: specs.OpMaskedEqual}},
	}}, p.Syscalls...)
	return compile(p)
}

// Load is a filter from a profile in Docker's form (https://docs.docker.com/engine/security/seccomp/).
func Load(text string, caps Set) ([]byte, error) {
	p, err := seccomp.LoadProfile(text, spec(caps))
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, errors.New("the seccomp profile is empty")
	}
	return compile(p)
}

// spec is what of a container a profile's rules depend on.
func spec(caps Set) *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps.Names()}}}
}

// compile makes the kernel's program: struct sock_filter after struct sock_filter. For each architecture the numbers
// are compared one after the other; the kernel remembers for which of them the answer is always to allow, and then does
// not run the program (seccomp_cache_prepare in kernel/seccomp.c).
func compile(p *specs.LinuxSeccomp) ([]byte, error) {
	fallback, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	list := arches[runtime.GOARCH]
	if list == nil {
		return nil, fmt.Errorf("no system call filters for %s: use --security-opt seccomp=unconfined", runtime.GOARCH)
	}
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: offArch, Size: 4}}
	for _, a := range list {
		block, err := a.compile(p, fallback)
		if err != nil {
			return nil, err
		}
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: a.audit, SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(block))})
		program = append(program, block...)
	}
	raw, err := bpf.Assemble(append(program, ret(fallback)))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxInstructions {
		return nil, fmt.Errorf("the seccomp profile has %d instructions; the kernel takes %d", len(raw),
			maxInstructions)
	}
	var b []byte
	for _, r := range raw {
		b = binary.NativeEndian.AppendUint16(b, r.Op)
		b = append(b, r.Jt, r.Jf)
		b = binary.NativeEndian.AppendUint32(b, r.K)
	}
	return b, nil
}

// maxInstructions is BPF_MAXINSNS (include/uapi/linux/bpf_common.h).
const maxInstructions = 4096

// A rule is what happens to a call whose arguments fit.
type rule struct {
	args   []specs.LinuxSeccompArg
	action uint32
}

// compile makes the part of one architecture, which the kernel enters with the architecture loaded.
func (a arch) compile(p *specs.LinuxSeccomp, fallback uint32) ([]bpf.Instruction, error) {
	text, err := numbers.ReadFile("syscalls/" + a.file + ".txt")
	if err != nil {
		return nil, err
	}
	number := map[string]uint32{}
	for line := range strings.Lines(string(text)) {
		name, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(digits, 10, 32); err == nil {
			number[name] = uint32(n)
		}
	}
	rules := map[uint32][]rule{}
	var order []uint32
	for _, s := range p.Syscalls {
		act, err := action(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, err
		}
		for _, name := range s.Names {
			n, ok := number[name]
			if !ok {
				continue // of another architecture, or newer than the list
			}
			if rules[n] == nil {
				order = append(order, n)
			}
			rules[n] = append(rules[n], rule{s.Args, act})
		}
	}
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: offNumber, Size: 4}}
	if a.audit == unix.AUDIT_ARCH_X86_64 {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32, SkipTrue: 1}, ret(fallback))
	}
	for _, n := range order {
		body, err := compileRules(rules[n], fallback)
		if err != nil {
			return nil, err
		}
		if len(body) < 256 {
			program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: n, SkipTrue: uint8(len(body))})
		} else {
			program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: n, SkipTrue: 1},
				bpf.Jump{Skip: uint32(len(body))})
		}
		program = append(program, body...)
	}
	return append(program, ret(fallback)), nil
}

// compileRules makes the part of one system call: the first rule whose arguments fit counts, those without arguments
// last.
func compileRules(rules []rule, fallback uint32) ([]bpf.Instruction, error) {
	var program []bpf.Instruction
	last := fallback
	for _, r := range rules {
		if len(r.args) == 0 {
			last = r.action
			continue
		}
		var conditions []bpf.Instruction
		// From the last argument to the first, since each skips what follows it where it does not fit.
		rest := []bpf.Instruction{ret(r.action)}
		for i := len(r.args) - 1; i >= 0; i-- {
			c, err := condition(r.args[i], len(rest))
			if err != nil {
				return nil, err
			}
			conditions = c
			rest = append(conditions, rest...)
		}
		program = append(program, rest...)
	}
	return append(program, ret(last)), nil
}

func ret(action uint32) bpf.Instruction { return bpf.RetConstant{Val: action} }

func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	number := uint32(unix.EPERM)
	if errno != nil {
		number = uint32(*errno)
	}
	switch a {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | number&unix.SECCOMP_RET_DATA, nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	}
	return 0, fmt.Errorf("seccomp profile: action %s is not known here", a)
}
