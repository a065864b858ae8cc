package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// show prints what write would do.
func (i integration) show(w io.Writer) {
	fmt.Fprintf(w, "# %s; with --write these are made:\n", i.short)
	for _, path := range slices.Sorted(maps.Keys(i.links)) {
		fmt.Fprintf(w, "ln -s %s %s\n", i.links[path], path)
	}
	for _, path := range slices.Sorted(maps.Keys(i.files)) {
		fmt.Fprintf(w, "# %s\n%s", path, i.files[path])
	}
	fmt.Fprintf(w, "# %s\n", i.after)
}

// write makes links and files. It refuses, before it changes anything, to overwrite what is not its own.
func (i integration) write(w io.Writer) error {
	for _, path := range slices.Sorted(maps.Keys(i.links)) {
		if err := i.foreign(path); err != nil {
			return fmt.Errorf("%w: move it away first", err)
		}
	}
	for path, text := range i.files {
		if b, err := os.ReadFile(path); err == nil && !written(b, text) {
			return fmt.Errorf(
				"%s is there and was not written by usernet: move it away first, or add to it by hand:\n%s",
				path,
				text,
			)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(i.links)) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Symlink(i.links[path], path); err != nil {
			return err
		}
		fmt.Fprintln(w, "linked", path)
	}
	for _, path := range slices.Sorted(maps.Keys(i.files)) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(i.files[path], "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(i.files[path]), mode); err != nil {
			return err
		}
		fmt.Fprintln(w, "wrote", path)
	}
	fmt.Fprintln(w, i.after)
	return nil
}

// foreign is an error where something that usernet did not write is at the path of a link. A link to a program of the
// same name elsewhere is usernet's, of another version or from before the program was moved.
func (i integration) foreign(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return nil //nolint:nilerr // nothing is there, or what reads it next says why it cannot be read
	}
	if info.Mode()&os.ModeSymlink == 0 {
		return fmt.Errorf("%s is there and is no link", path)
	}
	to, err := os.Readlink(path)
	if err != nil {
		return err
	}
	if filepath.IsAbs(to) && filepath.Base(to) == filepath.Base(i.links[path]) {
		return nil
	}
	return fmt.Errorf("the link %s leads to %s and was not made by usernet", path, to)
}

// written says whether a file is one of usernet's, perhaps of another version. JSON has no comments that would say so.
func written(have []byte, text string) bool {
	return string(have) == text || strings.Contains(string(have), "Written by `usernet integrate")
}

// undo removes what write made: the files, the links that no other integration in place has, and directories that are
// empty then. What usernet did not write stays, and is an error.
func (i integration) undo(w io.Writer) error {
	var failed []error
	for _, path := range slices.Sorted(maps.Keys(i.files)) {
		b, err := os.ReadFile(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err == nil && !written(b, i.files[path]):
			failed = append(failed, fmt.Errorf("%s was not written by usernet, and stays", path))
		case err != nil:
			failed = append(failed, err)
		default:
			failed = append(failed, i.remove(w, path))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(i.links)) {
		if i.used[path] {
			continue
		}
		if err := i.foreign(path); err != nil {
			failed = append(failed, fmt.Errorf("%w, and stays", err))
			continue
		}
		if err := i.remove(w, path); !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// remove removes a file or a link, and the directories above it that are empty then.
func (i integration) remove(w io.Writer, path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	fmt.Fprintln(w, "removed", path)
	for dir := filepath.Dir(path); i.tidies(dir); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break // it is not empty
		}
	}
	return nil
}

// tidies says whether a directory goes where it is empty.
func (i integration) tidies(dir string) bool {
	return slices.ContainsFunc(i.tidy, func(above string) bool { return strings.HasPrefix(dir, above+"/") })
}
