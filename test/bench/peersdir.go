package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// peerPrograms are the programs that --peers may replace. No other of the directory's is used: a whole root of another
// distribution has an ip and an sh as well, which need that distribution's libraries.
var peerPrograms = []string{"pasta", "passt", "slirp4netns", "rootlesskit"}

// preferPeers puts the peers' programs in dir, or in its folders of programs, in front of PATH, for which it makes the
// folder links. Where dir is the root of a distribution, its programs are started by its own dynamic loader: they may
// need a newer libc than this machine's.
func preferPeers(dir, links string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(links, 0o755); err != nil {
		return err
	}
	loader, libraries := foreignLoader(dir)
	var found int
	for _, name := range peerPrograms {
		program := programIn(dir, name)
		if program == "" {
			continue
		}
		found++
		start := fmt.Sprintf("'%s'", program)
		if loader != "" && name != "rootlesskit" { // which starts /proc/self/exe again, and needs no library
			start = fmt.Sprintf("'%s' --library-path '%s' --argv0 '%s' '%s'", loader, libraries, name, fastest(program))
		}
		script := "#!/bin/sh\nexec " + start + " \"$@\"\n"
		if err := os.WriteFile(filepath.Join(links, name), []byte(script), 0o755); err != nil {
			return err
		}
	}
	if found == 0 {
		return fmt.Errorf("--peers %s: none of %s is there", dir, strings.Join(peerPrograms, ", "))
	}
	return os.Setenv("PATH", links+":"+os.Getenv("PATH"))
}

// programIn is the path of a program in dir or in one of its usual folders, empty where it is in none.
func programIn(dir, name string) string {
	for _, sub := range []string{"", "bin", "usr/bin", "sbin", "usr/sbin"} {
		path := filepath.Join(dir, sub, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// fastest is the build of a program that it would start in its own place on this processor. passt has one for AVX2
// beside it, which it does not find where it was started by a loader: /proc/self/exe is the loader then.
func fastest(program string) string {
	build := program + ".avx2"
	if _, err := os.Stat(build); err != nil {
		return program
	}
	if processor, err := os.ReadFile("/proc/cpuinfo"); err != nil || !strings.Contains(string(processor), " avx2 ") {
		return program
	}
	return build
}

// foreignLoader is the dynamic loader in dir and the path of its libraries, both empty where dir is not a root.
func foreignLoader(dir string) (loader, libraries string) {
	loaders, err := filepath.Glob(filepath.Join(dir, "lib64/ld-linux-*.so.*"))
	if err != nil || len(loaders) == 0 {
		return "", ""
	}
	folders, err := filepath.Glob(filepath.Join(dir, "usr/lib/*-linux-gnu"))
	if err != nil || len(folders) == 0 {
		return "", ""
	}
	return loaders[0], strings.Join(folders, ":")
}
