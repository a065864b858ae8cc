package cgroup

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a group uses now, and has used. What a controller that is missing would tell is 0.
type Usage struct {
	Memory      uint64            // bytes, with the cache of files
	MemoryLimit uint64            // bytes; 0: none
	MemoryStat  map[string]uint64 // memory.stat: parts of Memory and counts, by the kernel's names
	Pids        uint64            // processes and threads
	PidsLimit   uint64            // 0: none
	User        time.Duration     // of processors, as System
	System      time.Duration
	Periods     uint64 // that were counted for the limit of processors,
	Throttled   uint64 // and in which it was reached
	Waited      time.Duration
	OOMKills    uint64
}

// Usage measures the group.
func (g *Group) Usage() (u Usage, err error) {
	number := func(file string) uint64 {
		n, e := readNumber(filepath.Join(g.dir, file))
		if e != nil && !errors.Is(e, os.ErrNotExist) {
			err = e
		}
		return n
	}
	pairs := func(file string) map[string]uint64 {
		m, e := readPairs(filepath.Join(g.dir, file))
		if e != nil && !errors.Is(e, os.ErrNotExist) {
			err = e
		}
		return m
	}
	if _, err := os.Stat(g.dir); err != nil {
		return u, err
	}
	cpu := pairs("cpu.stat")
	u = Usage{
		Memory: number("memory.current"), MemoryLimit: number("memory.max"), MemoryStat: pairs("memory.stat"),
		Pids: number("pids.current"), PidsLimit: number("pids.max"),
		User:    microseconds(cpu["user_usec"]),
		System:  microseconds(cpu["system_usec"]),
		Periods: cpu["nr_periods"], Throttled: cpu["nr_throttled"], Waited: microseconds(cpu["throttled_usec"]),
		OOMKills: pairs("memory.events")["oom_kill"],
	}
	return u, err
}

func microseconds(n uint64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/1000)) * time.Microsecond
}

// readNumber reads a file with a number; 0 where it is "max".
func readNumber(name string) (uint64, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(b))
	if text == noLimitText {
		return 0, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

// readPairs reads a file with a name and a number on each line (flat keyed, Documentation/admin-guide/cgroup-v2.rst).
func readPairs(name string) (map[string]uint64, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	m := map[string]uint64{}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			if n, err := strconv.ParseUint(value, 10, 64); err == nil {
				m[key] = n
			}
		}
	}
	return m, nil
}
