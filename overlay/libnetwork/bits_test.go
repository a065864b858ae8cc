package libnetwork

import (
	"math/rand/v2"
	"testing"
)

// What Docker 20.10.24 had in its store: a /24 with its own address, its last, and .1 to .3 taken, and VNI 256.
const (
	dockersSubnet = `{"id":"GlobalDefault/10.50.0.0/24","sequence":` +
		`"AAAAAAAAAQAAAAAAAAAA+/AAAAAAAAAAAAAAAQAAAAAAAAAAAAAABgAAAAEAAAAAAAAAAQ=="}`
	dockersVNIs = `{"id":"vxlan-id","sequence":"AAAAAAD//wAAAAAAAP/+/4AAAAAAAAAAAAAAAQAAAAAAAAAAAAf/9w=="}`
)

// TestBitmapsOfDocker reads bitmaps that a daemon has written, and writes them again.
func TestBitmapsOfDocker(t *testing.T) {
	for _, test := range []struct {
		text       string
		size, free uint64
		set        []uint64
	}{
		{dockersSubnet, 256, 251, []uint64{0, 1, 2, 3, 255}},
		{dockersVNIs, 1<<24 - 256, 1<<24 - 257, []uint64{0}},
	} {
		b, err := decodeBitmap([]byte(test.text))
		if err != nil || b.size != test.size || b.free != test.free {
			t.Fatalf("%s: %+v, %v", test.text, b, err)
		}
		want := newBitmap(b.id, test.size)
		for _, i := range test.set {
			if !b.isSet(i) || !want.set(i, true) {
				t.Errorf("%s: bit %d is free", b.id, i)
			}
		}
		text, err := want.encode()
		if err != nil || string(text) != test.text {
			t.Errorf("the same made here: %s, %v; Docker's is %s", text, err, test.text)
		}
	}
}

// TestBitmapAsAList changes bits at random and compares with a list of them.
func TestBitmapAsAList(t *testing.T) {
	for _, size := range []uint64{1, 31, 32, 33, 256, 1000} {
		b, list := newBitmap("x", size), make([]bool, size)
		for range 3000 {
			i, on := rand.Uint64N(size), rand.IntN(2) == 0
			if changed := b.set(i, on); changed != (list[i] != on) {
				t.Fatalf("bit %d of %d: changed %v", i, size, changed)
			}
			list[i] = on
			from, to := rand.Uint64N(size), rand.Uint64N(size)
			want, is := uint64(0), false
			for j := from; j <= to && !is; j++ {
				want, is = j, !list[j]
			}
			got, ok := b.firstFree(from, to)
			if ok != is || is && got != want {
				t.Fatalf("first of %d to %d: %d, %v; want %d, %v in %v", from, to, got, ok, want, is, b.runs)
			}
		}
		free := uint64(0)
		for i, on := range list {
			if b.isSet(uint64(i)) != on {
				t.Fatalf("bit %d of %d is %v", i, size, !on)
			}
			if !on {
				free++
			}
		}
		text, err := b.encode()
		if err != nil || b.free != free {
			t.Fatalf("%d are free of %d, want %d: %v", b.free, size, free, err)
		}
		if again, err := decodeBitmap(text); err != nil || len(again.runs) != len(b.runs) {
			t.Fatalf("read again: %v", err)
		}
	}
}

// FuzzBitmap reads what is in a store.
func FuzzBitmap(f *testing.F) {
	f.Add([]byte(dockersSubnet), uint64(5))
	f.Add([]byte(dockersVNIs), uint64(1<<24))
	f.Add([]byte(`{"id":"x","sequence":"AAAAAAAAAQAAAAAAAAAA+w=="}`), uint64(0))
	f.Fuzz(func(t *testing.T, text []byte, i uint64) {
		b, err := decodeBitmap(text)
		if err != nil {
			return
		}
		if free, is := b.firstFree(0, b.size-1); is && (b.isSet(free) || !b.set(free, true)) {
			t.Errorf("bit %d is free and set", free)
		}
		b.set(i, true)
		if text, err = b.encode(); err == nil {
			_, err = decodeBitmap(text)
		}
		if err != nil {
			t.Errorf("what was read and changed cannot be read: %v", err)
		}
	})
}
