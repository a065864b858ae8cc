package sockio

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestYieldAllocatesNothingAndLeavesNoDescriptor(t *testing.T) {
	var y Yielder
	y.Yield() // opens it
	if y.file == nil {
		t.Fatal("no eventfd")
	}
	fd := -1
	if err := y.raw.Control(func(n uintptr) { fd = int(n) }); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, y.Yield); n != 0 {
		t.Errorf("%v allocations", n)
	}
	y.Close()
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
		t.Error("the eventfd is still open")
	}
	y.Close() // once more is no harm
}

func BenchmarkYield(b *testing.B) {
	var y Yielder
	defer y.Close()
	for b.Loop() {
		y.Yield()
	}
}
