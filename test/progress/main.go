// Command progress shows what `go test -json` reports as it happens: a line for each test with the time it took, the
// output of one that failed, and at the end plain counts.
//
//	go test -json ./... | progress [-v] [-counts FILE]
//
// With -v it prints the output of every test at once. With -counts it adds "PASSED FAILED SKIPPED" to FILE, for a
// caller that has several runs, and what failed with the beginning of its output to FILE.failures. It ends with status
// 1 where a test failed, or a package did not build or did not end well.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

// quiet is after how long without a line progress says what runs.
const quiet = 30 * time.Second

func main() {
	verbose := flag.Bool("v", false, "print the output of every test at once")
	file := flag.String("counts", "", "add the counts to `FILE`")
	flag.Parse()
	p := newProgress(os.Stdout, *verbose)
	if err := p.readAll(os.Stdin, time.NewTicker(quiet).C); err != nil {
		fmt.Fprintln(os.Stderr, "progress:", err)
		p.failed++
	}
	p.summary()
	if *file != "" {
		if err := p.addCounts(*file); err != nil {
			fmt.Fprintln(os.Stderr, "progress:", err)
			p.failed++
		}
	}
	if p.failed > 0 {
		os.Exit(1)
	}
}

// readAll reads events until the end of in. At each tick it says what runs, unless there was a line since the last.
func (p *progress) readAll(in io.Reader, tick <-chan time.Time) error {
	lines, failed := make(chan []byte), make(chan error, 1)
	go func() {
		s := bufio.NewScanner(in)
		s.Buffer(nil, 64<<20) // a line of output may be long
		for s.Scan() {
			lines <- append([]byte(nil), s.Bytes()...)
		}
		failed <- s.Err()
		close(lines)
	}()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return <-failed
			}
			p.line(line)
		case now := <-tick:
			p.still(now)
		}
	}
}

// addCounts appends the counts to a file, and what failed to the one beside it.
func (p *progress) addCounts(path string) error {
	if err := add(path, fmt.Sprintln(p.passed, p.failed, p.skipped)); err != nil {
		return err
	}
	if p.failures.Len() == 0 {
		return nil
	}
	return add(path+".failures", p.failures.String())
}

// add appends text to a file, which other users may append to as well.
func add(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(f, text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
