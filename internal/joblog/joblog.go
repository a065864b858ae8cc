// Package joblog reads the log of a container's output: a file with a line of JSON for each line of the output, as
// Docker's json-file log driver has it, and an older file beside it once the log was turned over. Who runs the
// container writes it; commands and the API read it while it grows.
package joblog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// Line is a line of output, or a part of a long one.
type Line struct {
	Log    string    `json:"log"` // with its newline, where it has one
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

// Older is the path of the log that was turned over last.
func Older(path string) string { return path + ".1" }

// Sizes in bytes.
const (
	blockSize = 64 << 10 // what is read at once
	maxLine   = 1 << 20  // of a line that is read; longer ones, which no container's monitor writes, are left out
)

// Reader reads a log that grows, and may be turned over meanwhile. It holds a block of it and a line at a time. Make it
// with Open.
type Reader struct {
	path  string
	older *os.File // is read first; nil: it was, or there is none
	file  *os.File // nil: it is not there yet
	block []byte
	part  []byte // of a line that is not whole yet
	skip  bool   // that line is too long
}

// Open opens the log at path at its last lines: as many as tail says, all of them where it is negative. The caller
// closes it.
func Open(path string, tail int) (*Reader, error) {
	r := &Reader{path: path, block: make([]byte, blockSize)}
	err := r.open()
	if err == nil && tail >= 0 {
		err = r.seek(tail)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// open opens both files: the current one first, so that one that is turned over between is seen as older.
func (r *Reader) open() (err error) {
	if r.file, err = openLog(r.path); err != nil {
		return err
	}
	if r.older, err = openLog(Older(r.path)); err != nil || r.older == nil || r.file == nil {
		return err
	}
	a, errA := r.older.Stat()
	b, errB := r.file.Stat()
	if errA == nil && errB == nil && os.SameFile(a, b) { // it was turned over just now
		_ = r.file.Close() // it was only read
		r.file = nil
	}
	return errors.Join(errA, errB)
}

// openLog opens a file that may not be there.
func openLog(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

// seek goes to the last n lines.
func (r *Reader) seek(n int) error {
	if r.file != nil {
		found, err := seekLast(r.file, n, r.block)
		if err != nil {
			return err
		}
		n -= found
	}
	if r.older == nil {
		return nil
	}
	_, err := seekLast(r.older, n, r.block)
	return err
}

// seekLast goes to the last n whole lines of a file, and says how many there are, n at most.
func seekLast(f *os.File, n int, block []byte) (found int, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	newlines := 0
	for at := end; at > 0; {
		size := min(at, int64(len(block)))
		at -= size
		b := block[:size]
		if _, err := f.ReadAt(b, at); err != nil {
			return 0, err
		}
		for i := len(b) - 1; i >= 0; i-- {
			if b[i] != '\n' {
				continue
			}
			if newlines++; newlines > n { // the end of the line before the first one
				_, err := f.Seek(at+int64(i)+1, io.SeekStart)
				return n, err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return newlines, err
}

// Each calls f for the lines that came since the last call. An error of f ends it.
func (r *Reader) Each(f func(Line) error) error {
	if r.older != nil {
		if err := r.drain(r.older, f); err != nil {
			return err
		}
		_ = r.older.Close() // it was only read
		r.older, r.part = nil, nil
	}
	for {
		if r.file == nil {
			var err error
			if r.file, err = openLog(r.path); err != nil || r.file == nil {
				return err
			}
		}
		at, errAt := r.file.Stat()
		now, errNow := os.Stat(r.path) // before reading: what is turned over after this has been read to its end
		if err := r.drain(r.file, f); err != nil {
			return err
		}
		if errAt != nil || errNow != nil || os.SameFile(at, now) {
			return nil
		}
		_ = r.file.Close() // it was only read
		r.file, r.part = nil, nil
	}
}

// drain reads a file to its end.
func (r *Reader) drain(file *os.File, f func(Line) error) error {
	for {
		n, err := file.Read(r.block)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for b := r.block[:n]; len(b) > 0; {
			line, rest, whole := bytes.Cut(b, []byte{'\n'})
			b = rest
			if r.skip = r.skip || len(r.part)+len(line) > maxLine; r.skip {
				r.part = nil
			} else {
				r.part = append(r.part, line...)
			}
			if !whole {
				continue
			}
			var l Line
			if good := !r.skip && json.Unmarshal(r.part, &l) == nil; good {
				if err := f(l); err != nil {
					return err
				}
			}
			r.part, r.skip = r.part[:0], false
		}
	}
}

// Close closes the files.
func (r *Reader) Close() {
	for _, f := range []*os.File{r.older, r.file} {
		if f != nil {
			_ = f.Close() // it was only read
		}
	}
	r.older, r.file = nil, nil
}

// ParseTail reads how many lines are wanted from the end: a number, or all (-1) with "", "all" or a negative number, as
// Docker has it.
func ParseTail(s string) (int, error) {
	if s == "all" || s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("invalid value %q for --tail: give a number, or all", s)
	}
	return max(n, -1), nil
}
