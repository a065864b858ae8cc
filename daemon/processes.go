package daemon

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

// clockTick is the unit of times in /proc: USER_HZ is 100 on all architectures (include/asm-generic/param.h).
const clockTick = 10 * time.Millisecond

// Processes lists the processes of a running container: its first one and all that descend from it. What `exec` has
// started descends from the command that did, and is not among them. Memory is what a process shares with no other.
func (d *Daemon) Processes(ref string) ([]api.Process, error) {
	c, err := d.model.Container(ref)
	if err != nil {
		return nil, err
	}
	if c.Status != network.Running || c.Pid == 0 {
		return nil, errdefs.Conflict("container %s is not running", c.ID)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]api.Process{}
	var first []api.Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := readProcess(pid)
		if err != nil {
			continue // it has ended meanwhile
		}
		if pid == c.Pid {
			first = append(first, p)
			continue
		}
		children[p.Parent] = append(children[p.Parent], p)
	}
	list := first
	for i := 0; i < len(list); i++ {
		list = append(list, children[list[i].Pid]...)
	}
	room := maxCommands
	for i := range list {
		if err := describe(&list[i], min(room, maxCommand)); err != nil {
			continue // it has ended meanwhile
		}
		room -= len(list[i].Command)
		room = max(room, 0)
	}
	return list, nil
}

// Bounds of the command lines that are read, in bytes: of one process, and of all of a container. Each may have 6 MiB
// in Linux (execve(2)), which a process shares with all that it forks.
const (
	maxCommand  = 4 << 10
	maxCommands = 1 << 20
)

// readStart reads a file's beginning, of n bytes at most.
func readStart(name string, n int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(n)))
}

// readProcess reads what proc_pid_stat(5) tells.
func readProcess(pid int) (p api.Process, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, err
	}
	// The second field, the command's name in parentheses, may hold anything; count from its end.
	text := string(b)
	begin, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	fields := strings.Fields(text[end+1:]) // the first of them is field 3
	if begin < 0 || end < begin || len(fields) < 20 {
		return p, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	number := func(field int) int64 {
		n, _ := strconv.ParseInt(fields[field-3], 10, 64) // the kernel writes numbers
		return n
	}
	return api.Process{
		Pid:      pid,
		Parent:   int(number(4)),
		Terminal: terminalName(number(7)),
		User:     time.Duration(number(14)) * clockTick,
		System:   time.Duration(number(15)) * clockTick,
		Waited:   time.Duration(number(16)+number(17)) * clockTick,
		Threads:  int(number(20)),
		Started:  time.Duration(number(22)) * clockTick,
		Command:  "[" + text[begin+1:end] + "]",
	}, nil
}

// describe adds user, command and memory. Of the command's line, room bytes at most are read; with 0 it is the name.
func describe(p *api.Process, room int) error {
	dir := fmt.Sprintf("/proc/%d/", p.Pid)
	if b, err := readStart(dir+"cmdline", room); err == nil && len(b) > 0 {
		p.Command = strings.TrimRight(strings.ReplaceAll(string(b), "\x00", " "), " ")
	}
	b, err := os.ReadFile(dir + "statm")
	if err != nil {
		return err
	}
	if fields := strings.Fields(string(b)); len(fields) > 2 { // proc_pid_statm(5): size, resident, shared, in pages
		resident, _ := strconv.ParseInt(fields[1], 10, 64)
		shared, _ := strconv.ParseInt(fields[2], 10, 64)
		p.Memory = uint64(max(resident-shared, 0)) * uint64(os.Getpagesize())
	}
	if b, err = os.ReadFile(dir + "status"); err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			if fields := strings.Fields(ids); len(fields) > 1 {
				p.UID = fields[1] // the effective one, as ps(1) shows it
			}
		}
	}
	return nil
}

// Majors of terminals (Documentation/admin-guide/devices.txt).
const (
	majorTTY       = 4
	majorPTSFirst  = 136
	majorPTSLast   = 143
	minorsPerMajor = 256
)

// terminalName is that of a process's terminal by its device number (makedev(3)), as ps(1) shows it.
func terminalName(device int64) string {
	major, minor := device>>8&0xfff, device&0xff|device>>12&0xfff00
	switch {
	case major >= majorPTSFirst && major <= majorPTSLast:
		return fmt.Sprint("pts/", (major-majorPTSFirst)*minorsPerMajor+minor)
	case major == majorTTY:
		return fmt.Sprint("tty", minor)
	}
	return "?"
}

// Traffic counts what passed a container's interfaces, by their names. What the bypass carries passes none.
func (d *Daemon) Traffic(ref string) (map[string]api.Traffic, error) {
	s, _, err := d.lockContainer(ref)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	list := map[string]api.Traffic{}
	for _, a := range s.attachments {
		st := a.port.Stats()
		var drops uint64
		for _, n := range st.Drops {
			drops += n
		}
		list[a.endpoint.Interface] = api.Traffic{ // the switch's out is the container's in
			ReceivedBytes: st.BytesOut, ReceivedPackets: st.FramesOut, SentBytes: st.BytesIn, SentPackets: st.FramesIn,
			SentDropped: drops,
		}
	}
	return list, nil
}
