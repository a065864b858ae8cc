package mesh

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/overlay"
)

const (
	hostA = overlay.HostID("0a00000000000000000000000000000a")
	hostB = overlay.HostID("0b00000000000000000000000000000b")
)

// pair is two hosts; every nth message between them is lost.
func pair(t *testing.T, lose int64) (a, b *Mesh) {
	t.Helper()
	running := leak.Goroutines()
	t.Cleanup(func() { running.NoneLeft(t) })
	var ends [2]atomic.Pointer[Mesh]
	var count atomic.Int64
	to := func(end int, from overlay.HostID) func(overlay.HostID, []byte) bool {
		return func(_ overlay.HostID, m []byte) bool {
			if len(m) > mtu+1 || !IsMessage(m) {
				t.Errorf("a message of %d bytes", len(m))
			}
			if lose == 0 || count.Add(1)%lose != 0 {
				if there := ends[end].Load(); there != nil {
					there.Receive(from, m)
				}
			}
			return true
		}
	}
	for i, from := range []overlay.HostID{hostA, hostB} {
		m, err := New(Config{Send: to(1-i, from)})
		if err != nil {
			t.Fatal(err)
		}
		ends[i].Store(m)
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return ends[0].Load(), ends[1].Load()
}

func TestAConnectionOverLossyMessages(t *testing.T) {
	a, b := pair(t, 20)
	sent := make([]byte, 1<<18)
	_, _ = rand.Read(sent)
	got := make(chan []byte, 1)
	go func() {
		defer close(got)
		c, err := b.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		all, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		got <- all
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := a.Dial(ctx, hostB)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if all := <-got; !bytes.Equal(all, sent) {
		t.Errorf("%d of %d bytes came", len(all), len(sent))
	}
}

func TestDatagrams(t *testing.T) {
	a, b := pair(t, 0)
	buf := make([]byte, 65536)
	for _, size := range []int{1, 1000, 1400, 5000} {
		sent := make([]byte, size)
		_, _ = rand.Read(sent)
		if err := b.WriteTo(sent, hostA); err != nil {
			t.Fatal(err)
		}
		n, from, err := a.ReadFrom(buf)
		if err != nil || from != hostB || !bytes.Equal(buf[:n], sent) {
			t.Errorf("%d bytes: %d came from %s: %v", size, n, from, err)
		}
	}
}

func TestWhatMakesNoSenseIsDropped(t *testing.T) {
	a, _ := pair(t, 0)
	for _, m := range [][]byte{nil, {}, {kind}, {2, 3}, bytes.Repeat([]byte{kind}, 60), make([]byte, 3000),
		append([]byte{kind, 0x45, 0, 0, 20}, make([]byte, 15)...)} {
		a.Receive(hostB, m)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := a.Dial(ctx, "0c00000000000000000000000000000c"); err == nil || errors.Is(err, errTooMany) {
		t.Errorf("a host that is not there: %v", err)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte{kind, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6})
	m, err := New(Config{Send: func(overlay.HostID, []byte) bool { return true }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, b []byte) { m.Receive(hostB, b) })
}
