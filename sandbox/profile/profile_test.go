package profile

import (
	"encoding/binary"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// decide runs a filter as the kernel would, for a call of this machine's architecture unless audit says another.
func decide(t *testing.T, filter []byte, audit, number uint32, args ...uint64) uint32 {
	t.Helper()
	var raw []bpf.RawInstruction
	for b := filter; len(b) > 0; b = b[8:] {
		raw = append(
			raw,
			bpf.RawInstruction{
				Op: binary.NativeEndian.Uint16(b),
				Jt: b[2],
				Jf: b[3],
				K:  binary.NativeEndian.Uint32(b[4:]),
			},
		)
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("not a program")
	}
	// The module's machine has network byte order, so each word of struct seccomp_data is written that way.
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offNumber:], number)
	binary.BigEndian.PutUint32(data[offArch:], audit)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[offArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[offArgs+8*i+4:], uint32(a>>32))
	}
	// It counts what comes back as a length, and cuts it: ask for each verdict by itself.
	for i, ins := range program {
		if r, ok := ins.(bpf.RetConstant); ok {
			program[i] = bpf.RetConstant{Val: code(r.Val)}
		}
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// Short codes of verdicts.
const (
	allow  = 1
	eperm  = 2
	enosys = 3
	other  = 4
)

func code(verdict uint32) uint32 {
	switch verdict {
	case unix.SECCOMP_RET_ALLOW:
		return allow
	case unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM):
		return eperm
	case unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS):
		return enosys
	}
	return other
}

func TestDefaultFilterIsDockers(t *testing.T) {
	ordinary, err := Capabilities(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	native := arches[runtime.GOARCH][0].audit
	withAdmin, err := Capabilities([]string{"CAP_SYS_ADMIN"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what   string
		caps   Set
		number uint32
		args   []uint64
		want   uint32
	}{
		{"read", ordinary, unix.SYS_READ, nil, allow},
		{"execve", ordinary, unix.SYS_EXECVE, nil, allow},
		{"a process", ordinary, unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, allow},
		{"a user namespace", ordinary, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}, eperm},
		{"a user namespace, by an administrator", withAdmin, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER}, allow},
		{"clone3, so that clone is taken", ordinary, unix.SYS_CLONE3, nil, enosys},
		{"unshare", ordinary, unix.SYS_UNSHARE, nil, eperm},
		{"mount", ordinary, unix.SYS_MOUNT, nil, eperm},
		{"mount, by an administrator", withAdmin, unix.SYS_MOUNT, nil, allow},
		{"keyctl", ordinary, unix.SYS_KEYCTL, nil, eperm},
		{"bpf", ordinary, unix.SYS_BPF, nil, eperm},
		{"io_uring", ordinary, unix.SYS_IO_URING_SETUP, nil, eperm},
		{"a packet socket", ordinary, unix.SYS_SOCKET, []uint64{unix.AF_PACKET}, allow},
		{"a TCP socket", ordinary, unix.SYS_SOCKET, []uint64{unix.AF_INET}, allow},
		{"a socket of the hypervisor", ordinary, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK}, eperm},
		{"a number whose lower half is a family", ordinary, unix.SYS_SOCKET, []uint64{1<<32 | unix.AF_INET}, eperm},
		{"typing on a terminal", ordinary, unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}, eperm},
		{"the same with an upper half, which the kernel ignores", ordinary, unix.SYS_IOCTL,
			[]uint64{0, 7<<32 | unix.TIOCSTI}, eperm},
		{"another request", ordinary, unix.SYS_IOCTL, []uint64{0, unix.TIOCGWINSZ}, allow},
		{"no such call", ordinary, 5000, nil, eperm},
	} {
		filter, err := Default(c.caps)
		if err != nil {
			t.Fatal(err)
		}
		if got := decide(t, filter, native, c.number, c.args...); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
	filter, err := Default(ordinary)
	if err != nil {
		t.Fatal(err)
	}
	if got := decide(t, filter, unix.AUDIT_ARCH_S390X, unix.SYS_READ); got != eperm {
		t.Errorf("a call of another machine: %d", got)
	}
	if runtime.GOARCH == "amd64" {
		if got := decide(t, filter, unix.AUDIT_ARCH_X86_64, x32|unix.SYS_READ); got != eperm {
			t.Errorf("a call of x32: %d", got)
		}
		const read386, mount386 = 3, 21
		if got := decide(t, filter, unix.AUDIT_ARCH_I386, read386); got != allow {
			t.Errorf("read of a program for 386: %d", got)
		}
		if got := decide(t, filter, unix.AUDIT_ARCH_I386, mount386); got != eperm {
			t.Errorf("mount of a program for 386: %d", got)
		}
	}
}

func TestProfilesOfUsersAreCompiled(t *testing.T) {
	native := arches[runtime.GOARCH][0].audit
	compare := func(op string, value uint64) string {
		return `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["dup3"],"action":"SCMP_ACT_ERRNO","errnoRet":38,"args":[{"index":2,"value":` +
			strconv.FormatUint(value, 10) + `,"op":"` + op + `"}]}]}`
	}
	big := uint64(5)<<32 | 7
	for _, c := range []struct {
		op   string
		hits []uint64
		miss []uint64
	}{
		{"SCMP_CMP_EQ", []uint64{big}, []uint64{7, 5 << 32, big + 1}},
		{"SCMP_CMP_NE", []uint64{7, 5 << 32, big + 1}, []uint64{big}},
		{"SCMP_CMP_GT", []uint64{big + 1, 6 << 32}, []uint64{big, 7, 8, big - 1, 4<<32 | 9}},
		{"SCMP_CMP_GE", []uint64{big, big + 1, 6 << 32}, []uint64{7, 8, big - 1}},
		{"SCMP_CMP_LT", []uint64{0, 7, big - 1, 4<<32 | 9}, []uint64{big, big + 1, 6 << 32}},
		{"SCMP_CMP_LE", []uint64{0, 7, big}, []uint64{big + 1, 6 << 32}},
	} {
		filter, err := Load(compare(c.op, big), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range c.hits {
			if got := decide(t, filter, native, unix.SYS_DUP3, 0, 0, v); got != enosys {
				t.Errorf("%#x %s %#x: %d", v, c.op, big, got)
			}
		}
		for _, v := range c.miss {
			if got := decide(t, filter, native, unix.SYS_DUP3, 0, 0, v); got != allow {
				t.Errorf("not %#x %s %#x: %d", v, c.op, big, got)
			}
		}
	}
	for text, words := range map[string]string{
		`{`:  "Decoding seccomp profile",
		`{}`: "is empty",
		`{"defaultAction":"SCMP_ACT_NOTIFY","syscalls":[]}`: "is not known",
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":9,"op":"SCMP_CMP_EQ"}]}]}`: "argument 9",
	} {
		if _, err := Load(text, 0); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", text, err, words)
		}
	}
}

func TestCapabilitiesAreDockersUnlessSaid(t *testing.T) {
	admin, raw := slices.Index(names, "NET_ADMIN"), slices.Index(names, "NET_RAW")
	if admin != unix.CAP_NET_ADMIN || len(names) != unix.CAP_LAST_CAP+1 {
		t.Fatal("the list is not the kernel's")
	}
	for _, c := range []struct {
		add, drop  []string
		admin, raw bool
		count      int
	}{
		{nil, nil, false, true, 14},
		{[]string{"net_admin"}, nil, true, true, 15},
		{[]string{"CAP_NET_ADMIN"}, []string{"NET_RAW"}, true, false, 14},
		{nil, []string{"ALL"}, false, false, 0},
		{[]string{"NET_RAW"}, []string{"all"}, false, true, 1},
		{[]string{"ALL"}, []string{"NET_ADMIN"}, false, true, len(names) - 1},
	} {
		s, err := Capabilities(c.add, c.drop)
		if err != nil || s.Has(admin) != c.admin || s.Has(raw) != c.raw || len(s.Names()) != c.count {
			t.Errorf("+%v -%v: %v, %v", c.add, c.drop, s.Names(), err)
		}
	}
	if _, err := Capabilities([]string{"NET_ADMINN"}, nil); err == nil {
		t.Error("a capability that does not exist is added")
	}
}

func BenchmarkDefault(b *testing.B) {
	caps, err := Capabilities(nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Default(caps); err != nil {
			b.Fatal(err)
		}
	}
}

// TestNesting: a container with Docker's default capabilities may make namespaces, and nothing else that it might not.
func TestNesting(t *testing.T) {
	caps, err := Capabilities(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := Nesting()
	if err != nil {
		t.Fatal(err)
	}
	nesting, err := Load(text, caps)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := Default(caps)
	if err != nil {
		t.Fatal(err)
	}
	own := arches[runtime.GOARCH][0].audit
	for name, c := range map[string]struct {
		number uint32
		args   []uint64
		want   uint32
	}{
		"unshare":     {unix.SYS_UNSHARE, []uint64{unix.CLONE_NEWUSER}, allow},
		"clone":       {unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER}, allow},
		"mount":       {unix.SYS_MOUNT, nil, allow},
		"setns":       {unix.SYS_SETNS, nil, allow},
		"bpf":         {unix.SYS_BPF, nil, eperm},
		"kexec":       {unix.SYS_KEXEC_LOAD, nil, eperm},
		"clone3":      {unix.SYS_CLONE3, nil, enosys},
		"init_module": {unix.SYS_INIT_MODULE, nil, eperm},
	} {
		if got := decide(t, nesting, own, c.number, c.args...); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
		if got := decide(t, plain, own, c.number, c.args...); got == allow {
			t.Errorf("%s is allowed in any container", name)
		}
	}
}
