package capture

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usernet/usernet/observe/capture/filter"
)

var web = Interface{Container: "web", ID: "0123", Network: "n", MAC: []byte{2, 0x42, 10, 1, 0, 2},
	Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")}}

// frameOf is a frame of n bytes with a type.
func frameOf(n int, kind byte) (ethernet []byte, payload [][]byte) {
	ethernet = make([]byte, 14)
	ethernet[12] = kind
	return ethernet, [][]byte{make([]byte, (n-14)/2), make([]byte, n-14-(n-14)/2)}
}

// recorded is what a recorder writes until it is told to end, after do.
func recorded(t *testing.T, r *Recorder, do func()) []byte {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	do()
	cancel()
	var b bytes.Buffer
	if err := r.Run(ctx, &b, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestACaptureIsReadBack(t *testing.T) {
	f, err := filter.Parse("ether proto 0x0800", filter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := New(Config{Application: "usernet", Expression: "ip", Filter: f, Snaplen: 60})
	e := r.Endpoint(web)
	stream := recorded(t, r, func() {
		for _, out := range []bool{true, false} {
			e.Frame(out, first(frameOf(100, 8)), second(frameOf(100, 8)))
			e.Frame(out, first(frameOf(100, 9)), second(frameOf(100, 9))) // of another type
		}
	})
	path := filepath.Join(t.TempDir(), "x.pcapng")
	sum, err := Copy(bytes.NewReader(stream), Output{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if sum.Frames != 2 || sum.Endpoints != 1 || sum.Counts != (Counts{4, 2, 0}) || sum.Bytes != int64(len(stream)) {
		t.Errorf("%+v of %d bytes", sum, len(stream))
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, stream) {
		t.Errorf("the file is not the stream: %v, %d of %d bytes", err, len(b), len(stream))
	}
	for _, want := range []string{"web@n", "container web on network n, 10.1.0.2, fd00::2",
		"container=web id=0123 network=n"} {
		if !bytes.Contains(stream, []byte(want)) {
			t.Errorf("%q is missing", want)
		}
	}
}

func first(b []byte, _ [][]byte) []byte    { return b }
func second(_ []byte, p [][]byte) [][]byte { return p }

// TestAFullQueueLosesFrames never blocks who shows them, and counts.
func TestAFullQueueLosesFrames(t *testing.T) {
	r := New(Config{Queue: 1000})
	e := r.Endpoint(web)
	stream := recorded(t, r, func() {
		for range 100 {
			e.Frame(true, first(frameOf(100, 8)), second(frameOf(100, 8)))
		}
	})
	sum, err := Copy(bytes.NewReader(stream), Output{Path: "-", Std: &bytes.Buffer{}})
	if err != nil || sum.Frames != 10 || sum.Counts != (Counts{100, 100, 90}) {
		t.Errorf("%v, %+v", err, sum)
	}
	if n := r.held.Load(); n != 0 {
		t.Errorf("%d bytes are held", n)
	}
	e.Frame(true, first(frameOf(100, 8)), second(frameOf(100, 8)))
	if e.counts().Lost != 90 {
		t.Error("the queue does not take frames again")
	}
}

func TestCountEndsACapture(t *testing.T) {
	r := New(Config{Count: 3})
	e := r.Endpoint(web)
	for range 5 {
		e.Frame(true, first(frameOf(100, 8)), second(frameOf(100, 8)))
	}
	var b bytes.Buffer
	if err := r.Run(t.Context(), &b, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if sum, err := Copy(&b, Output{Path: "-", Std: &bytes.Buffer{}}); err != nil || sum.Frames != 3 {
		t.Errorf("%v, %+v", err, sum)
	}
}

// TestFilesInTurn has each file be a capture with all interfaces.
func TestFilesInTurn(t *testing.T) {
	dir := t.TempDir()
	r := New(Config{})
	stream := recorded(t, r, func() {
		for i := range 50 {
			if i%25 == 0 {
				web.Container = fmt.Sprint("web", i)
				e := r.Endpoint(web)
				defer e.Frame(true, first(frameOf(100, 8)), second(frameOf(100, 8)))
			}
			r.endpoints[0].Frame(true, first(frameOf(100, 8)), second(frameOf(100, 8)))
		}
	})
	sum, err := Copy(bytes.NewReader(stream), Output{Path: filepath.Join(dir, "x.pcapng"), RotateSize: 2000, Files: 3})
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) != 3 || len(sum.Files) != 3 || !strings.HasSuffix(files[0], ".pcapng") {
		t.Fatalf("%q, %+v", files, sum)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || len(b) > 2000 || bytes.Count(b, []byte("container=")) != 2 {
			t.Errorf("%s: %d bytes, %d interfaces, %v", f, len(b), bytes.Count(b, []byte("container=")), err)
		}
		if _, err := Copy(bytes.NewReader(b), Output{Path: "-", Std: &bytes.Buffer{}}); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	one := filepath.Join(dir, "one")
	full := 0
	sum, err = Copy(bytes.NewReader(stream), Output{Path: one, MaxSize: 1500, Full: func() { full++ }})
	if err != nil || sum.Bytes > 1500 {
		t.Errorf("the size is passed: %+v, %v", sum, err)
	}
	if full != 1 || sum.Frames == 0 || sum.Frames >= 52 || sum.Counts.Accepted != 52 {
		t.Errorf("the capture was ended %d times; %+v", full, sum)
	}
}

// TestBegunIsSaidOnce says that a capture runs only once its file is open.
func TestBegunIsSaidOnce(t *testing.T) {
	stream := recorded(t, New(Config{}), func() {})
	for path, want := range map[string]int{
		filepath.Join(t.TempDir(), "no directory", "x"): 0,
		filepath.Join(t.TempDir(), "x"):                 1,
		"/dev/full":                                     0,
		"-":                                             1,
	} {
		begun := 0
		_, err := Copy(bytes.NewReader(stream), Output{Path: path, Std: &bytes.Buffer{}, Begun: func() { begun++ }})
		if begun != want || (err == nil) != (want == 1) {
			t.Errorf("%s: begun %d times, want %d: %v", path, begun, want, err)
		}
	}
}

func TestWhatIsNoStreamIsRefused(t *testing.T) {
	for _, text := range []string{"not a capture at all", "\x0a\x0d\x0d\x0a\xff\xff\xff\xff",
		"\x0a\x0d\x0d\x0a\x20\x00\x00\x00"} {
		if _, err := Copy(strings.NewReader(text), Output{Path: "-", Std: &bytes.Buffer{}}); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// FuzzCopy reads any stream.
func FuzzCopy(f *testing.F) {
	r := New(Config{})
	e := r.Endpoint(web)
	e.Frame(true, first(frameOf(100, 8)), second(frameOf(100, 8)))
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	var b bytes.Buffer
	if err := r.Run(ctx, &b, func() error { return nil }); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(_ *testing.T, stream []byte) {
		_, _ = Copy(bytes.NewReader(stream), Output{Path: "-", Std: &bytes.Buffer{}})
	})
}

// BenchmarkUnwantedFrame is what a frame costs that the filter does not want.
func BenchmarkUnwantedFrame(b *testing.B) {
	f, err := filter.Parse("tcp port 80 and host 10.1.0.2", filter.Options{})
	if err != nil {
		b.Fatal(err)
	}
	e := New(Config{Filter: f}).Endpoint(web)
	ethernet, payload := frameOf(1000, 8)
	b.ReportAllocs()
	for range b.N {
		e.Frame(true, ethernet, payload)
	}
}
