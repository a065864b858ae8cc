package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is USER_HZ, on every architecture that Go runs on.
const ticksPerSecond = 100

// workloads are the programs that run inside sandboxes: what they use is not the tool's.
var workloads = map[string]bool{
	"iperf3":  true,
	"sh":      true,
	"sleep":   true,
	"setpriv": true,
	"ping":    true,
	"env":     true,
	"ip":      true,
}

// stat is one process of /proc (proc_pid_stat(5)).
type stat struct {
	comm          string
	parent        int
	ticks, waited int // processor time of its own, and of its children that have ended
}

func parseStat(text string) (s stat, ok bool) {
	begin, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if begin < 0 || end < begin {
		return s, false
	}
	fields := strings.Fields(text[end+1:])
	if len(fields) < 15 {
		return s, false
	}
	number := func(i int) int { // of the manual, which counts from 1 and has pid and comm before
		n, err := strconv.Atoi(fields[i-3])
		ok = ok && err == nil
		return n
	}
	ok = true
	s = stat{text[begin+1 : end], number(4), number(14) + number(15), number(16) + number(17)}
	return s, ok
}

// cpuTicks is the processor time that a process has used.
func cpuTicks(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	s, ok := parseStat(string(text))
	if !ok {
		return 0, fmt.Errorf("/proc/%d/stat: %s", pid, text)
	}
	return s.ticks, nil
}

// processorTime is what a process has used, with its children that have ended, of which only ticks are known.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	var t unix.Timespec
	clock := int32(^pid<<3 | 2) // as clock_getcpuclockid(3) makes it: that of the process, by the scheduler
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	s, _ := parseStat(string(text))
	return time.Duration(t.Nano()) + time.Duration(s.waited)*time.Second/ticksPerSecond, nil
}

// childrensTime is the processor time of this process's children that have been waited for.
func childrensTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_CHILDREN, &u) // it cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ownTicks is the processor time of a tool: of its process and those that it started, which live or have ended, but not
// of what it runs for others.
func ownTicks(root int) (sum int) {
	for _, s := range ownProcesses(processTable(), root, filepath.Base(self())) {
		sum += s.ticks + s.waited
	}
	return sum
}

// processTable is all of /proc, by process id.
func processTable() map[int]stat {
	processes := map[int]stat{}
	names, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if s, ok := parseStat(string(text)); err == nil && ok {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			processes[pid] = s
		}
	}
	return processes
}

// ownProcesses are root and the processes below it that are the tool's: those below a workload are not.
func ownProcesses(processes map[int]stat, root int, generator string) map[int]stat {
	own := map[int]stat{}
	s, ok := processes[root]
	if !ok || workloads[s.comm] || strings.HasPrefix(generator, s.comm) { // the kernel cuts comm to 15 bytes
		return own
	}
	own[root] = s
	for pid, child := range processes {
		if child.parent == root {
			maps.Copy(own, ownProcesses(processes, pid, generator))
		}
	}
	return own
}

// othersSample is how long others are watched.
const othersSample = 500 * time.Millisecond

// others is the share of the machine's processors that is in use while nothing is measured: other programs' share.
func others() float64 {
	busy1, all1 := machineTicks()
	time.Sleep(othersSample) // the length of the sample
	busy2, all2 := machineTicks()
	if all2 == all1 {
		return 0
	}
	return float64(busy2-busy1) / float64(all2-all1)
}

// machineTicks reads the first line of /proc/stat (proc_stat(5)).
func machineTicks() (busy, all int) {
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line) {
		n, err := strconv.Atoi(field)
		if err != nil || i > 8 { // the heading; guests' time is in user's
			continue
		}
		all += n
		if i != 4 && i != 5 { // idle and waiting for a disk
			busy += n
		}
	}
	return busy, all
}
