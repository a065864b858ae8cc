package pasta

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// logFile is a file that is kept below a size: where it is full, old lines at its beginning go (pasta(1), --log-size).
type logFile struct {
	mu   sync.Mutex
	file *os.File
	size int64 // now, in bytes
	max  int64
}

// openLog opens a log file, whose lines stay.
func openLog(path string, max int64) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("couldn't open log file: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &logFile{file: f, size: size, max: max}, nil
}

// Write implements io.Writer for whole lines.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(b)) > l.max {
		if err := l.cut(int64(len(b))); err != nil {
			return 0, err
		}
	}
	n, err := l.file.WriteAt(b, l.size)
	l.size += int64(n)
	return n, err
}

// cut takes old lines away until a quarter of the file is free, and room for so many bytes. The caller holds l.mu.
func (l *logFile) cut(room int64) error {
	stays := max(0, min(l.size, l.max-max(room, l.max/4)))
	text := make([]byte, stays)
	if _, err := l.file.ReadAt(text, l.size-stays); err != nil {
		return err
	}
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		text = text[i+1:] // what is before it is a part of a line
	}
	if _, err := l.file.WriteAt(text, 0); err != nil {
		return err
	}
	l.size = int64(len(text))
	return l.file.Truncate(l.size)
}
