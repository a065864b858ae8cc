package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestProgress(t *testing.T) {
	const pkg = `"Package":"github.com/usernet/usernet/test"`
	for _, test := range []struct {
		name                    string
		verbose                 bool
		events                  []string
		passed, failed, skipped int
		want                    []string // each is printed
		never                   []string // none of them is
	}{
		{"a test passes", false, []string{
			`{"Action":"run",` + pkg + `,"Test":"TestA"}`, `{"Action":"output",` + pkg + `,"Test":"TestA","Output":"chatter\n"}`,
			`{"Action":"pass",` + pkg + `,"Test":"TestA/sub","Elapsed":0.1}`, `{"Action":"pass",` + pkg + `,"Test":"TestA","Elapsed":1.5}`,
			`{"Action":"output",` + pkg + `,"Output":"PASS\n"}`, `{"Action":"pass",` + pkg + `,"Elapsed":2}`,
		}, 2, 0, 0, []string{"ok      1.50s  test TestA\n", "2 passed, 0 failed ("},
			[]string{"chatter", "sub", "skipped"}},
		{"a long subtest", false, []string{
			`{"Action":"pass",` + pkg + `,"Test":"TestA/sub","Elapsed":7}`, `{"Action":"pass",` + pkg + `,"Test":"TestA/other","Elapsed":1}`,
		}, 2, 0, 0, []string{"ok      7.00s  test TestA/sub\n"}, []string{"other"}},
		{"its output at once", true, []string{`{"Action":"output",` + pkg + `,"Test":"TestA","Output":"chatter\n"}`}, 0, 0, 0, []string{"chatter\n"}, nil},
		{"a subtest fails", false, []string{
			`{"Action":"run",` + pkg + `,"Test":"TestA"}`, `{"Action":"output",` + pkg + `,"Test":"TestA/sub","Output":"    reason\n"}`,
			`{"Action":"fail",` + pkg + `,"Test":"TestA/sub","Elapsed":0.1}`, `{"Action":"fail",` + pkg + `,"Test":"TestA","Elapsed":1.5}`,
			`{"Action":"output",` + pkg + `,"Output":"FAIL\n"}`, `{"Action":"output",` + pkg + `,"Output":"FAIL\tx\t2s\n"}`, `{"Action":"fail",` + pkg + `,"Elapsed":2}`,
		}, 0, 2, 0, []string{"    reason\nFAIL    1.50s  test TestA\n", "0 passed, 2 failed"}, nil},
		{"the binary panics", false, []string{
			`{"Action":"run",` + pkg + `,"Test":"TestA"}`, `{"Action":"output",` + pkg + `,"Test":"TestA","Output":"panic: test timed out\n"}`,
			`{"Action":"fail",` + pkg + `,"Elapsed":2}`,
		}, 0, 1, 0, []string{"panic: test timed out\n", "TestA did not end", "0 passed, 1 failed"}, nil},
		{"a package does not build", false, []string{
			`{"ImportPath":"x","Action":"build-output","Output":"x.go:1: no\n"}`, `{"ImportPath":"x","Action":"build-fail"}`,
			`{"Action":"output",` + pkg + `,"Output":"FAIL\tx [build failed]\n"}`, `{"Action":"fail",` + pkg + `,"FailedBuild":"x"}`,
		}, 0, 1, 0, []string{"x.go:1: no\n", "0 passed, 1 failed"}, nil},
		{"a package fails after tests that passed", false, []string{
			`{"Action":"pass",` + pkg + `,"Test":"TestA","Elapsed":1}`, `{"Action":"output",` + pkg + `,"Output":"WARNING: DATA RACE\n"}`,
			`{"Action":"fail",` + pkg + `,"Elapsed":2}`,
		}, 1, 1, 0, []string{"DATA RACE"}, nil},
		{"a test is skipped", false, []string{
			`{"Action":"output",` + pkg + `,"Test":"TestA","Output":"no such program\n"}`, `{"Action":"skip",` + pkg + `,"Test":"TestA"}`,
		}, 0, 0, 1, []string{"no such program\nSKIP", ", 1 skipped"}, nil},
		{"what is no event", false, []string{"go: downloading x"}, 0, 0, 0, []string{"go: downloading x\n"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			p := newProgress(&out, test.verbose)
			if err := p.readAll(strings.NewReader(strings.Join(test.events, "\n")), nil); err != nil {
				t.Fatal(err)
			}
			p.summary()
			if p.passed != test.passed || p.failed != test.failed || p.skipped != test.skipped {
				t.Errorf("counted %d, %d, %d; want %d, %d, %d", p.passed, p.failed, p.skipped, test.passed, test.failed,
					test.skipped)
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is missing in:\n%s", want, &out)
				}
			}
			for _, never := range test.never {
				if strings.Contains(out.String(), never) {
					t.Errorf("%q is in:\n%s", never, &out)
				}
			}
		})
	}
}

// TestFailuresAreSaidAgain is what a caller of several runs shows at its end.
func TestFailuresAreSaidAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "counts")
	for _, stream := range []string{
		`{"Action":"output","Package":"p","Test":"TestA/sub","Output":"reason\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"` + strings.Repeat("x", repeated) + `"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`,
		`{"Action":"pass","Package":"p","Test":"TestB"}`,
		`{"Action":"run","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Test":"TestC","Output":"panic\n"}
{"Action":"fail","Package":"p"}`,
	} {
		p := newProgress(io.Discard, false)
		if err := p.readAll(strings.NewReader(stream), nil); err != nil {
			t.Fatal(err)
		}
		if err := p.addCounts(file); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		file: "0 1 0\n1 0 0\n0 1 0\n",
		file + ".failures": "FAIL  p TestA\nreason\n" + strings.Repeat("x", repeated-len("reason\n")) + " [...]\n" +
			"FAIL  p TestC\npanic\nFAIL  p \n",
	} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %v %q, want %q", name, err, got, want)
		}
	}
}

func TestProgressSaysWhatRuns(t *testing.T) {
	var out strings.Builder
	p := newProgress(&out, false)
	p.line([]byte(`{"Action":"run","Package":"github.com/usernet/usernet/test","Test":"TestLong","Time":"2026-01-01T00:00:00Z"}`))
	at := time.Date(2026, 1, 1, 0, 1, 10, 0, time.UTC)
	p.still(at)
	if want := "...            test TestLong for 1m10s\n"; out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
	out.Reset()
	p.line([]byte(`{"Action":"pass","Package":"github.com/usernet/usernet/test","Test":"TestLong","Elapsed":80}`))
	p.still(at)
	if strings.Contains(out.String(), "...") {
		t.Errorf("after a line: %q", &out)
	}
}
