package boltstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/usernet/usernet/network"
)

// GoodCopy is the path of the copy of the file at path that SaveCopy has made last.
func GoodCopy(path string) string { return path + ".good" }

// SaveCopy copies the file to GoodCopy, to be offered once it is damaged. It is for when the records have been found to
// make sense, which only their reader knows.
func (d *DB) SaveCopy() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	info, err := d.file.Stat()
	if err == nil {
		err = copyFile(d.file, info.Size(), GoodCopy(d.path))
	}
	if err != nil {
		return fmt.Errorf("no copy of state %s was made: %w", d.path, err)
	}
	return nil
}

// checkFile says what is wrong with the structure of the file. An empty one is a new one.
func checkFile(f *os.File, path string) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("state %s: %w", path, err)
	}
	if info.Size() == 0 {
		return nil
	}
	if err := check(f, info.Size()); err != nil {
		return damaged(path, err)
	}
	return nil
}

// copyFile copies size bytes of f to path, which has the old or the new content at each instant.
func copyFile(f io.ReaderAt, size int64, path string) (err error) {
	to, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path+".new"))
		}
	}()
	_, err = io.Copy(to, io.NewSectionReader(f, 0, size))
	if err = errors.Join(err, to.Sync(), to.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Damaged wraps what is wrong with the file or with a record in it: the error is ErrDamaged, and says what to do.
func (d *DB) Damaged(cause error) error { return damaged(d.path, cause) }

func damaged(path string, cause error) error {
	way := fmt.Sprintf("to begin anew, put it aside: mv %s %s.damaged", path, path)
	if made, ok := soundCopy(GoodCopy(path)); ok {
		way = fmt.Sprintf("a copy from %s is sound, and to go on with it: mv %s %s.damaged && cp %s %s; %s",
			made.Format(time.DateTime), path, path, GoodCopy(path), path, way)
	}
	return fmt.Errorf("%w: %s: %w; %s", network.ErrDamaged, path, cause, way)
}

// soundCopy says when the copy at path was made, if there is one to go on with.
func soundCopy(path string) (made time.Time, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return made, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || check(f, info.Size()) != nil {
		return made, false
	}
	return info.ModTime(), true
}
