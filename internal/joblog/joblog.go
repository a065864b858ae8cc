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

// All returns the lines of the older log at path and of the current one, and the reader of what comes next, which the
// caller closes.
func All(path string) ([]Line, *Reader, error) {
	old, now := Reader{Path: Older(path)}, &Reader{Path: path}
	defer old.Close()
	lines, err := old.Read()
	if err == nil {
		var more []Line
		more, err = now.Read()
		lines = append(lines, more...)
	}
	if err != nil {
		now.Close()
		return nil, nil, err
	}
	return lines, now, nil
}

// Reader reads a log file that grows, and may be turned over meanwhile.
type Reader struct {
	Path string
	file *os.File
	part []byte // of a line that is not whole yet
}

// Read returns the lines that came since the last call; a file that is not there (yet) has none.
func (r *Reader) Read() ([]Line, error) {
	var lines []Line
	for {
		if r.file == nil {
			f, err := os.Open(r.Path)
			if errors.Is(err, os.ErrNotExist) {
				return lines, nil
			}
			if err != nil {
				return lines, err
			}
			r.file = f
		}
		at, errAt := r.file.Stat()
		now, errNow := os.Stat(r.Path) // before reading: what is turned over after this has been read to its end
		b, err := io.ReadAll(r.file)
		if err != nil {
			return lines, err
		}
		r.part = append(r.part, b...)
		for {
			line, rest, whole := bytes.Cut(r.part, []byte{'\n'})
			if !whole {
				break
			}
			var l Line
			if json.Unmarshal(line, &l) == nil {
				lines = append(lines, l)
			}
			r.part = rest
		}
		if errAt != nil || errNow != nil || os.SameFile(at, now) {
			return lines, nil
		}
		r.Close()
	}
}

// Close closes the file. The next Read begins at its start.
func (r *Reader) Close() {
	if r.file != nil {
		_ = r.file.Close() // it was only read
		r.file = nil
	}
}

// Last returns the last lines: as many as tail says, all of them with "", "all" or a negative number.
func Last(lines []Line, tail string) ([]Line, error) {
	if tail == "all" || tail == "" {
		return lines, nil
	}
	n, err := strconv.Atoi(tail)
	if err != nil {
		return nil, fmt.Errorf("invalid value %q for --tail: give a number, or all", tail)
	}
	if n < 0 {
		return lines, nil // as Docker: everything
	}
	return lines[max(0, len(lines)-n):], nil
}
