package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// long is how long a subtest takes whose end is worth a line.
const long = 5 * time.Second

// event is one of `go doc test2json`, or of `go help buildjson`.
type event struct {
	Time       time.Time
	Action     string
	Package    string
	ImportPath string // of a build
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// repeated is how much of the output of a test that failed is said again at the end, in bytes: its reason, which tests
// give in their first lines, without the logs after it.
const repeated = 1500

// progress is what is known of a run.
type progress struct {
	out     io.Writer
	verbose bool
	began   time.Time

	passed, failed, skipped int // tests and their subtests; what fails without a test counts as one

	output  map[key][]string  // of tests that have not ended, and of packages (Test is empty)
	running map[key]time.Time // since when
	spoke   bool              // a line was printed since the last call of still

	failures strings.Builder // of what failed, the name and the beginning of its output
}

// key is a test with its subtests, a package, or what was built.
type key struct{ pkg, test string }

func newProgress(out io.Writer, verbose bool) *progress {
	return &progress{
		out:     out,
		verbose: verbose,
		began:   time.Now(),
		output:  map[key][]string{},
		running: map[key]time.Time{},
	}
}

// print prints a line. Nobody could be told that this failed.
func (p *progress) print(format string, args ...any) {
	p.spoke = true
	_, _ = fmt.Fprintf(p.out, format, args...)
}

// line takes one line of the stream. What is no event, such as what the go command says itself, is printed as it is.
func (p *progress) line(text []byte) {
	var e event
	if err := json.Unmarshal(text, &e); err != nil || e.Action == "" {
		p.print("%s\n", text)
		return
	}
	name, _, sub := strings.Cut(e.Test, "/")
	k := key{e.Package, name}
	switch e.Action {
	case "run", "cont":
		if !sub {
			p.running[k] = e.Time
		}
	case "pause":
		if !sub {
			delete(p.running, k)
		}
	case "output":
		p.keep(k, e.Output)
	case "build-output":
		p.print("%s", e.Output)
	case "pass", "fail", "skip":
		p.end(k, e, sub)
	}
}

// keep stores output until it is known whether its test fails, or prints it.
func (p *progress) keep(k key, text string) {
	if p.verbose {
		p.print("%s", text)
		return
	}
	for _, noise := range []string{
		"=== RUN", "=== PAUSE", "=== CONT", "=== NAME",
		"PASS\n", "ok  \t", "?   \t", "FAIL\n", "FAIL\t", "exit status ", "--- PASS",
	} {
		if strings.HasPrefix(strings.TrimLeft(text, " "), noise) {
			return
		}
	}
	p.output[k] = append(p.output[k], text)
}

// end counts what has ended and prints its line, and its output where it failed.
func (p *progress) end(k key, e event, sub bool) {
	if k.test == "" {
		p.endPackage(k, e)
		return
	}
	count := map[string]*int{"pass": &p.passed, "fail": &p.failed, "skip": &p.skipped}[e.Action]
	*count++
	word := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "SKIP"}[e.Action]
	if sub {
		if e.Elapsed >= long.Seconds() {
			p.print("%s %7.2fs  %s %s\n", strings.ToLower(word), e.Elapsed, short(k.pkg), e.Test)
		}
		return // its output is printed with its test's
	}
	delete(p.running, k)
	if e.Action == "fail" {
		p.fails(k)
	}
	if e.Action != "pass" {
		p.flush(k)
	}
	delete(p.output, k)
	p.print("%s %7.2fs  %s %s\n", word, e.Elapsed, short(k.pkg), k.test)
}

// endPackage is for what belongs to no test: a package that does not build, a panic, a time-out, a data race after the
// tests.
func (p *progress) endPackage(k key, e event) {
	if e.Action == "fail" {
		unfinished := false
		for other := range p.running {
			if other.pkg == k.pkg { // the test binary ended while it ran
				unfinished = true
				p.fails(other)
				p.flush(other)
				p.print("FAIL           %s %s did not end\n", short(k.pkg), other.test)
				delete(p.running, other)
			}
		}
		if unfinished || len(p.output[k]) > 0 || p.failed == 0 {
			p.failed++
			p.fails(k)
		}
		p.flush(k)
		p.print("FAIL %7.2fs  package %s\n", e.Elapsed, k.pkg)
	}
	delete(p.output, k)
}

// fails keeps what is said again of something that failed.
func (p *progress) fails(k key) {
	text := strings.Join(p.output[k], "")
	if len(text) > repeated {
		text = strings.ToValidUTF8(text[:repeated], "") + " [...]\n"
	}
	fmt.Fprintf(&p.failures, "FAIL  %s %s\n%s", short(k.pkg), k.test, text)
}

func (p *progress) flush(k key) {
	for _, text := range p.output[k] {
		p.print("%s", text)
	}
	delete(p.output, k)
}

// still says what has been running, where nothing was printed for a while.
func (p *progress) still(now time.Time) {
	if !p.spoke {
		var names []string
		for k, since := range p.running {
			names = append(names, fmt.Sprintf("%s %s for %v", short(k.pkg), k.test, now.Sub(since).Round(time.Second)))
		}
		slices.Sort(names)
		if len(names) > 0 {
			p.print("...            %s\n", strings.Join(names, ", "))
		}
	}
	p.spoke = false
}

// summary prints the counts.
func (p *progress) summary() {
	text := fmt.Sprintf("%d passed, %d failed", p.passed, p.failed)
	if p.skipped > 0 {
		text += fmt.Sprintf(", %d skipped", p.skipped)
	}
	p.print("%s (%v)\n", text, time.Since(p.began).Round(time.Second))
}

// short is a package's path inside the module.
func short(pkg string) string {
	if _, rest, ok := strings.Cut(strings.TrimPrefix(pkg, "github.com/"), "/"); ok {
		if _, inside, ok := strings.Cut(rest, "/"); ok {
			return inside
		}
	}
	return pkg
}
