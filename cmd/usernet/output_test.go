package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usernet/usernet/internal/joblog"
)

// logged are the lines of a log as STREAM:TEXT.
func logged(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		var l joblog.Line
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		list = append(list, l.Stream+":"+l.Log)
	}
	return list
}

// TestOutputKeepsItsOrder has both streams ready before they are read: the first in order comes first, and parts of
// lines at the end.
func TestOutputKeepsItsOrder(t *testing.T) {
	for range 50 {
		path := filepath.Join(t.TempDir(), "log")
		out, w1, err := pipeOutput("stdout", nil)
		if err != nil {
			t.Fatal(err)
		}
		errs, w2, err := pipeOutput("stderr", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w2.WriteString("bad\npart")
		_, _ = w1.WriteString("one\ntwo\n" + strings.Repeat("x", maxLogLine+1))
		_, _ = w1.Close(), w2.Close()
		(&logFile{path: path}).follow(out, errs)
		want := "stdout:one\n|stdout:two\n|stdout:" + strings.Repeat("x", maxLogLine) +
			"|stderr:bad\n|stdout:x|stderr:part"
		if got := strings.Join(logged(t, path), "|"); got != want {
			t.Fatalf("%q", got)
		}
	}
}

// TestOutputIsCopiedAtOnce has a part of a line arrive before its end, and the writer told when nobody reads any more.
func TestOutputIsCopiedAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	r, tee, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o, w, err := pipeOutput("stdout", tee)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { (&logFile{path: path}).follow(o); close(done) }()
	_, _ = w.WriteString("prompt> ")
	b := make([]byte, 8)
	if _, err := io.ReadFull(r, b); err != nil || string(b) != "prompt> " {
		t.Fatalf("%q, %v", b, err)
	}
	_ = r.Close()
	_, _ = w.WriteString("lost\n")
	<-done
	if _, err := w.WriteString("more\n"); err == nil {
		t.Error("the writer does not notice that nobody reads")
	}
	if got := strings.Join(logged(t, path), "|"); got != "stdout:prompt> " {
		t.Errorf("%q", got)
	}
	_ = w.Close()
}
