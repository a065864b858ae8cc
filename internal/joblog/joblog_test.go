package joblog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// appendTo writes text to the end of a file.
func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// read returns what came since the last call.
func read(t *testing.T, r *Reader) string {
	t.Helper()
	got := ""
	if err := r.Each(func(l Line) error { got += l.Log; return nil }); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestLogsFollowAFileThatIsTurnedOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	r, err := Open(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	expect := func(want string) {
		t.Helper()
		if got := read(t, r); got != want {
			t.Errorf("read %q, want %q", got, want)
		}
	}
	expect("") // it is not there yet
	appendTo(t, path, `{"log":"a"}`+"\n"+`{"lo`)
	expect("a")
	appendTo(t, path, `g":"b"}`+"\n")
	expect("b")
	appendTo(t, path, `{"log":"c"}`+"\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, `{"log":"d"}`+"\n")
	expect("cd")
	expect("")
}

// TestLogsBeginAtTheirLastLines: in both files, over blocks, and with a line that is not whole yet.
func TestLogsBeginAtTheirLastLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	pad := strings.Repeat("x", blockSize/3)
	var all []string
	for i := range 12 {
		all = append(all, fmt.Sprint(i, pad))
		to := path
		if i < 5 {
			to = Older(path)
		}
		appendTo(t, to, fmt.Sprintf(`{"log":"%d%s"}`+"\n", i, pad))
	}
	appendTo(t, path, `{"log":"n`)
	for _, tail := range []int{-1, 0, 1, 6, 7, 8, 11, 12, 13, 1000} {
		want := all
		if tail >= 0 {
			want = all[max(0, len(all)-tail):]
		}
		r, err := Open(path, tail)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, r); got != strings.Join(want, "") {
			t.Errorf("the last %d are %d lines", tail, strings.Count(got, pad))
		}
		r.Close()
	}
}

// TestLogsAreReadWithBounds: lines without end and lines that are none are left out, the others are not.
func TestLogsAreReadWithBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, `{"log":"a"}`+"\n"+`{"log":"`+strings.Repeat("x", maxLine)+`"}`+"\nnothing\n"+`{"log":"b"}`+"\n")
	r, err := Open(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := read(t, r); got != "ab" {
		t.Errorf("read %d bytes", len(got))
	}
	appendTo(t, path, `{"log":"c"}`+"\n")
	full := errors.New("full")
	if err := r.Each(func(Line) error { return full }); !errors.Is(err, full) {
		t.Errorf("an error of the reader's: %v", err)
	}
}

func TestTails(t *testing.T) {
	for s, want := range map[string]int{"": -1, "all": -1, "-3": -1, "0": 0, "12": 12} {
		if got, err := ParseTail(s); got != want || err != nil {
			t.Errorf("%q is %d, %v", s, got, err)
		}
	}
	if _, err := ParseTail("many"); err == nil {
		t.Error("many is a number")
	}
}
