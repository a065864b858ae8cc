package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// A runtime that removes a container while no daemon answers forgets it, and nobody asks again for the attachment's
// end. So who asks may leave the key in a directory beside the socket, a file for each, for the daemon that answers
// next.

// LaterDir is that directory, for a daemon that listens at socket.
func LaterDir(socket string) string { return filepath.Join(filepath.Dir(socket), "detach") }

const (
	maxLater    = 4096 // bytes of a key
	maxLaterAll = 4096 // files that are looked at in one go
)

// DetachLater leaves word for the daemon that answers next: it ends the attachment that was made with key. It is for
// after Detach has failed.
func (c *Client) DetachLater(key string) error {
	dir := LaterDir(c.Socket)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	sum := sha256.Sum256([]byte(key))
	name := filepath.Join(dir, hex.EncodeToString(sum[:16]))
	next := name + ".next"
	return errors.Join(os.WriteFile(next, []byte(key), 0o600), os.Rename(next, name))
}

// Later calls f with each key that DetachLater has left in dir, and removes those for which it returns nil.
func Later(dir string, f func(key string) error) error {
	d, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(maxLaterAll)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var errs []error
	for _, name := range names {
		if filepath.Ext(name) != "" {
			continue // it is being written
		}
		path := filepath.Join(dir, name)
		key, err := readLater(path)
		if err == nil {
			err = f(key)
		}
		if err == nil {
			err = os.Remove(path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func readLater(path string) (string, error) {
	const noWait = syscall.O_NONBLOCK | syscall.O_NOFOLLOW // whatever has that name
	f, err := os.OpenFile(path, os.O_RDONLY|noWait, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	key, err := io.ReadAll(io.LimitReader(f, maxLater))
	return string(key), err
}
