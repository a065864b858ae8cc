package forwarder

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"
)

// handOver has w2 resume what w1 detaches, by way of JSON as between two processes.
func handOver(t *testing.T, w1, w2 *world) (pending int64) {
	t.Helper()
	list := w1.DetachFlows()
	if len(list) != 1 {
		t.Fatalf("%d connections were detached, want 1", len(list))
	}
	state, err := json.Marshal(list[0])
	if err != nil {
		t.Fatal(err)
	}
	st := new(State)
	if err := json.Unmarshal(state, st); err != nil {
		t.Fatal(err)
	}
	if err := st.SetFDs(list[0].FDs()); err != nil {
		t.Fatal(err)
	}
	pending = st.Directions[0].Bytes + st.Directions[1].Bytes
	if err := w2.ResumeFlow(st); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if flows := w1.Flows(); len(flows) > 0 {
			return fmt.Errorf("the first still has %+v", flows)
		}
		return nil
	})
	if flows := w2.Flows(); len(flows) != 1 || flows[0].Path != "bypass" {
		t.Errorf("the second has %+v", flows)
	}
	return pending
}

func direct(t *testing.T) (w1, w2 *world, container, host end) {
	w1, w2 = newWorld(t, nil), newWorld(t, nil)
	container, host = pairs[2].make(t, w1)
	for _, c := range []end{container, host} {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		t.Cleanup(func() { c.Close() })
	}
	return w1, w2, container, host
}

func TestQuietFlowIsResumed(t *testing.T) {
	w1, w2, container, host := direct(t)
	say := func(to, from end, text string) {
		t.Helper()
		if _, err := io.WriteString(to, text); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(from, got); err != nil || string(got) != text {
			t.Fatalf("%q, %v", got, err)
		}
	}
	say(container, host, "before")
	handOver(t, w1, w2)
	say(container, host, "after")
	say(host, container, "and back")
	if err := container.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := host.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the host reads %v", err)
	}
	// Once more, with one half at its end.
	w3 := newWorld(t, nil)
	handOver(t, w2, w3)
	say(host, container, "still")
	if err := host.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := container.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the container reads %v", err)
	}
	eventually(t, func() error {
		if n := len(w3.Flows()); n > 0 {
			return io.ErrNoProgress
		}
		return nil
	})
}

// noProgress waits until a look at a world's only flow shows what the one before has shown.
func noProgress(t *testing.T, w *world) {
	t.Helper()
	last, same := uint64(0), 0
	eventually(t, func() error {
		list := w.Flows()
		if len(list) != 1 {
			t.Fatalf("%d flows, want one: %+v", len(list), list)
		}
		if same++; list[0].BytesOut != last || last == 0 {
			last, same = list[0].BytesOut, 0
		}
		if same < 20 {
			return io.ErrNoProgress
		}
		return nil
	})
}

// TestFullFlowIsResumed has a receiver that reads nothing until the connection was handed on, twice.
func TestFullFlowIsResumed(t *testing.T) {
	w1, w2, container, host := direct(t)
	data := make([]byte, 40<<20)
	var seed [32]byte
	rand.NewChaCha8(seed).Read(data)
	failed := make(chan error, 1)
	go func() {
		_, err := container.Write(data)
		if err == nil {
			err = container.CloseWrite()
		}
		failed <- err
	}()
	// The receiver reads nothing, so that sooner or later no buffer takes more, and bytes are between the two sockets
	// when the connection is handed on. A busy machine fills the buffers later: the connection is handed on until it
	// was so.
	from, to := w1, w2
	for deadline := time.Now().Add(time.Minute); handOver(t, from, to) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("nothing was on its way in any handover")
		}
		from, to = to, newWorld(t, nil)
		noProgress(t, from)
	}
	handOver(t, to, newWorld(t, nil)) // once more, with the bytes that came with the connection
	sum := sha256.New()
	n, err := io.Copy(sum, host)
	if err != nil || n != int64(len(data)) {
		t.Fatalf("%d bytes arrived: %v", n, err)
	}
	if want := sha256.Sum256(data); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Error("other bytes arrived than were sent")
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}
