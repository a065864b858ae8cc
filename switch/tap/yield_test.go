package tap

import (
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	vswitch "github.com/usernet/usernet/switch"
)

// endless is a device that has a frame more for the reader for each that it gets, until stop.
type endless struct {
	more   func()
	frames atomic.Int64
	stop   atomic.Bool
	at     int64
	then   func() // called at frame number at
}

func (e *endless) WriteFrame(*vswitch.Frame) error {
	if e.frames.Add(1) == e.at {
		e.then()
	}
	if !e.stop.Load() {
		e.more()
	}
	return nil
}

// TestBusyReaderLetsOthersHaveTheirTurn has one reader that always finds frames, and another goroutine that waits for
// its descriptor, on one processor.
func TestBusyReaderLetsOthersHaveTheirTurn(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	pair := func() (reader *os.File, write func()) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := newFile(fds[0])
		t.Cleanup(func() {
			_ = f.Close()
			_ = unix.Close(fds[1])
		})
		frame := make([]byte, vswitch.HeaderLen+100)
		copy(frame[vswitch.VirtioHeaderLen:], []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0x88, 0xb5})
		return f, func() {
			if _, err := syscall.Write(fds[1], frame); err != nil {
				t.Error(err)
			}
		}
	}
	busy, send := pair()
	other, wake := pair()
	dev := &Device{file: busy}
	var err error
	if dev.raw, err = busy.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	e := &endless{more: send, at: 10 * quota, then: wake}
	sw := newSwitch(t)
	port, err := sw.Connect(vswitch.PortConfig{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0}}, dev)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sw.Connect(vswitch.PortConfig{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Role: vswitch.Gateway},
		e); err != nil {
		t.Fatal(err)
	}
	woken := make(chan int64, 1)
	go func() { // waits for its descriptor as another TAP's reader does
		_, _ = other.Read(make([]byte, 200))
		woken <- e.frames.Load()
	}()
	served := make(chan error, 1)
	send()
	go func() { served <- dev.Serve(port) }()
	after := <-woken - e.at
	e.stop.Store(true)
	_ = dev.Close()
	<-served
	if after > (aloneQuotas+2)*quota {
		t.Errorf("the other reader has its turn after %d frames, want some %d", after, aloneQuotas*quota)
	}
}

func TestYieldAllocatesNothingAndLeavesNoDescriptor(t *testing.T) {
	var y yielder
	y.yield() // opens it
	if y.file == nil {
		t.Fatal("no eventfd")
	}
	fd := -1
	if err := y.raw.Control(func(n uintptr) { fd = int(n) }); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, y.yield); n != 0 {
		t.Errorf("%v allocations", n)
	}
	y.close()
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
		t.Error("the eventfd is still open")
	}
	y.close() // once more is no harm
}

func BenchmarkYield(b *testing.B) {
	var y yielder
	defer y.close()
	for b.Loop() {
		y.yield()
	}
}
