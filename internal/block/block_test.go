package block

import "testing"

func TestBlocks(t *testing.T) {
	b := New()
	if b.IsZero() || len(b.Bytes()) != Size || !(Block{}).IsZero() {
		t.Fatalf("a block of %d bytes", len(b.Bytes()))
	}
	copy(b.Bytes(), "payload")
	b.Cut(7)
	if got := string(b.View().AsSlice()); got != "payload" {
		t.Errorf("netstack gets %q", got)
	}
	if len(b.Bytes()) != Size {
		t.Errorf("a block that was cut has %d bytes", len(b.Bytes()))
	}
	b.Recycle()
	c := Copy([][]byte{[]byte("pay"), nil, []byte("load")}, 7)
	if got := string(c.View().AsSlice()); got != "payload" {
		t.Errorf("a copy is %q", got)
	}
	c.View().Release()
}

func TestBlocksAreUsedAgain(t *testing.T) {
	if n := testing.AllocsPerRun(1000, func() { New().Recycle() }); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}
