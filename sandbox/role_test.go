package sandbox

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/internal/sockio"
)

// TestMessagesOfRolesBringDescriptors sends one message with descriptors, one without, and one that is none.
func TestMessagesOfRolesBringDescriptors(t *testing.T) {
	type order struct{ Count int }
	ours, theirs := connPair(t)
	f := newFile(t, "f")
	open := leak.Descriptors(t)
	if err := errors.Join(
		SendMessage(ours, order{7}, []int{int(f.Fd()), int(f.Fd())}),
		SendMessage(ours, order{8}, nil),
	); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ count, files int }{{7, 2}, {8, 0}} {
		var got order
		fds, err := ReceiveMessage(theirs, &got)
		if err != nil || got.Count != want.count || len(fds) != want.files {
			t.Errorf("%+v with %d descriptors, %v; want %+v", got, len(fds), err, want)
		}
		for _, fd := range fds {
			if n, err := unix.Write(fd, []byte("x")); n != 1 || err != nil {
				t.Errorf("it is no file that can be written to: %v", err)
			}
		}
		sockio.Close(fds)
	}
	if _, err := sockio.WriteRights(ours, []byte("no message"), int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	var none order
	if fds, err := ReceiveMessage(theirs, &none); err == nil || len(fds) > 0 {
		t.Errorf("what is no message: %d descriptors, %v", len(fds), err)
	}
	open.NoneLeft(t) // those of what was no message are closed
	if info, err := os.Stat(f.Name()); err != nil || info.Size() != 2 {
		t.Errorf("the file has %v, %v", info, err)
	}
	_ = ours.Close()
	if _, err := ReceiveMessage(theirs, &none); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}
