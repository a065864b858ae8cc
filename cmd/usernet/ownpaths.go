package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/usernet/usernet/daemon"
)

// stateFiles are the names in a state directory that are usernet's. They are the daemon's, but for the log of one that
// a command has started, and for the store that a user put aside as the message about a damaged one says.
var stateFiles = []string{
	"usernet.db", "usernet.db.good", "usernet.db.new", "usernet.db.damaged", "containers", "cluster",
	"docker-store", "flannel", "vm",
	socketFile, socketFile + ".new", daemonLog, daemonLog + ".1",
}

// apiPaths lists what of usernet's own is hidden from a sandbox with the caller's files: its state and its socket. A
// directory is hidden whole where it is usernet's alone, which also hides what is made in it later. Of one that may
// hold other things, as where --socket or --state-dir names it, only usernet's files are hidden.
func apiPaths(socket, stateDir string) []string {
	return append(statePaths(socket, stateDir), daemon.JobsDir(stateDir))
}

func statePaths(socket, stateDir string) []string {
	dir, name := filepath.Dir(socket), filepath.Base(socket)
	if dir == stateDir {
		files := append([]string{name}, stateFiles...)
		if usernetsAlone(dir, files) {
			return []string{dir}
		}
		return below(dir, files)
	}
	var list []string
	if usernetsAlone(stateDir, stateFiles) {
		list = append(list, stateDir)
	} else {
		list = below(stateDir, stateFiles)
	}
	if usernetsAlone(dir, []string{name}) {
		return append(list, dir)
	}
	return append(list, socket)
}

// below are the paths of files in a directory.
func below(dir string, names []string) []string {
	var list []string
	for _, name := range names {
		list = append(list, filepath.Join(dir, name))
	}
	return list
}

// usernetsAlone says whether a directory is usernet's: one that it uses by default, or one that is private to the user
// and holds nothing but files of the given names.
func usernetsAlone(dir string, names []string) bool {
	if slices.Contains(defaultDirs(), dir) {
		return true
	}
	if !private(dir) {
		return false
	}
	entries, err := os.ReadDir(dir)
	return err == nil && !slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return !slices.Contains(names, e.Name())
	})
}

// defaultDirs are the directories that usernet uses unless it is told otherwise: those of this environment, and those
// of a daemon that was started in another one.
func defaultDirs() []string {
	uid := strconv.Itoa(os.Getuid())
	list := []string{
		filepath.Join("/run/user", uid, "usernet"), filepath.Join(os.TempDir(), "usernet-"+uid), "/tmp/usernet-" + uid,
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		list = append(list, filepath.Join(dir, "usernet"))
	}
	if dir, err := stateDir(); err == nil {
		list = append(list, dir)
	}
	return list
}
