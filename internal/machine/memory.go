// Package machine knows how much memory this process may use.
package machine

import (
	"bufio"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// Memory is how many bytes of memory this process may use, and whether a control group says so: the lowest limit of its
// control group and those above (cgroups(7), memory.max; memory.limit_in_bytes in version 1), or else the machine's
// memory (proc(5), MemTotal). 0: neither is known.
func Memory() (bytes int64, limited bool) { return memory(os.DirFS("/")) }

func memory(root fs.FS) (bytes int64, limited bool) {
	total := memTotal(root)
	limit := groupLimit(root)
	if limit > 0 && (total == 0 || limit < total) {
		return limit, true
	}
	return total, false
}

func memTotal(root fs.FS) int64 {
	f, err := root.Open("proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if field := strings.Fields(s.Text()); len(field) >= 2 && field[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(field[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// groupLimit is the lowest limit of the process's control group and those above it; 0: none.
func groupLimit(root fs.FS) int64 {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	lowest := int64(math.MaxInt64)
	for _, line := range strings.Split(string(text), "\n") {
		f := strings.SplitN(line, ":", 3) // hierarchy, controllers, path (cgroups(7))
		if len(f) != 3 {
			continue
		}
		mount, file := "sys/fs/cgroup", "memory.max"
		if f[1] == "memory" {
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if f[1] != "" {
			continue
		}
		for dir := path.Clean("/" + f[2]); ; dir = path.Dir(dir) {
			if n := limitIn(root, path.Join(mount, dir, file)); n > 0 {
				lowest = min(lowest, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	if lowest >= math.MaxInt64/2 { // version 1 says "no limit" by a number near the largest
		return 0
	}
	return lowest
}

func limitIn(root fs.FS, name string) int64 {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil { // "max"
		return 0
	}
	return n
}
