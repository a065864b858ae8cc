package boltstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// GoodCopy is the path of the copy of the file at path, made when it was last found to be sound.
func GoodCopy(path string) string { return path + ".good" }

// checkAndCopy checks the file, and copies it where it is sound. An empty one is a new one. That it cannot be copied, as the
// disk is full, is no reason not to use it.
func checkAndCopy(f *os.File, path string) (copyErr, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", path, err)
	}
	if info.Size() == 0 {
		return nil, nil
	}
	if err := check(f, info.Size()); err != nil {
		return nil, damaged(path, err)
	}
	if err := copyFile(f, info.Size(), GoodCopy(path)); err != nil {
		return fmt.Errorf("no copy of state %s was made: %w", path, err), nil
	}
	return nil, nil
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
	return fmt.Errorf("%w: %s: %w; %s", ErrDamaged, path, cause, way)
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
