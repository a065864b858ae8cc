package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/usernet/usernet/internal/cgroup"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

// statsEvery is how often the stream of GET /containers/ID/stats has a sample, as in Docker.
const statsEvery = time.Second

// containerTop lists a container's processes as ps -ef does. usernet runs no ps, so it has no other form.
func (s *Server) containerTop(r *http.Request) (any, error) {
	if args := r.URL.Query().Get("ps_args"); args != "" && args != "-ef" {
		return nil, errdefs.Invalid("ps_args %q: processes are listed as by ps -ef only", args)
	}
	list, err := s.b.Processes(ref(r))
	if err != nil {
		return nil, err
	}
	up, err := uptime()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	top := container.TopResponse{
		Titles:    []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"},
		Processes: [][]string{},
	}
	for _, p := range list {
		ran := max(up-p.Started, time.Second)
		used := p.User + p.System
		started := now.Add(p.Started - up)
		form := "15:04"
		if now.Sub(started) > 24*time.Hour {
			form = "Jan02"
		}
		top.Processes = append(top.Processes, []string{
			userName(p.UID), strconv.Itoa(p.Pid), strconv.Itoa(p.Parent), strconv.Itoa(int(100 * used / ran)),
			started.Format(form), p.Terminal, psTime(used), p.Command,
		})
	}
	return top, nil
}

// psTime is hours, minutes and seconds.
func psTime(d time.Duration) string {
	n := int(d / time.Second)
	return fmt.Sprintf("%02d:%02d:%02d", n/3600, n/60%60, n%60)
}

// userName is the name of a user by the number, or the number where there is none.
func userName(uid string) string {
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}

// uptime is how long the machine runs (proc_uptime(5)).
func uptime() (time.Duration, error) {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(b), " ")
	return time.ParseDuration(first + "s")
}

// containerStats answers with samples, one a second, until the client has enough; with stream=false with the second
// sample, which has the first for comparison, or with one-shot with the first.
func (s *Server) containerStats(w http.ResponseWriter, r *http.Request) {
	c, err := s.b.Container(ref(r))
	if err != nil {
		fail(w, err)
		return
	}
	stream := !r.URL.Query().Has("stream") || boolParam(r, "stream")
	oneShot := boolParam(r, "one-shot")
	if stream && oneShot {
		fail(w, errdefs.Invalid("cannot have stream=true and one-shot=true"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	last := container.StatsResponse{}
	for first := true; ; first = false {
		now, err := s.sample(c)
		if err != nil {
			if first {
				fail(w, err)
			}
			return
		}
		now.PreRead, now.PreCPUStats = last.Read, last.CPUStats
		last = now
		if c.Status != network.Running || stream || oneShot || !first {
			if json.NewEncoder(w).Encode(now) != nil || !stream || c.Status != network.Running {
				return
			}
			_ = http.NewResponseController(w).Flush() // a client that is gone is noticed by the request's context
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(statsEvery):
		}
		if c, err = s.b.Container(c.ID); err != nil {
			return
		}
	}
}

// sample measures a container; one that does not run has nothing but its name.
func (s *Server) sample(c *network.Container) (v container.StatsResponse, err error) {
	v = container.StatsResponse{ID: c.ID, Name: "/" + c.Name, OSType: "linux"}
	if c.Status != network.Running {
		return v, nil
	}
	list, err := s.b.Processes(c.ID)
	if errors.Is(err, errdefs.ErrConflict) {
		return v, nil // it has ended meanwhile, or is no process
	}
	if err != nil {
		return v, err
	}
	traffic, err := s.b.Traffic(c.ID)
	if err != nil {
		return v, err
	}
	v.Read, v.Networks = time.Now(), map[string]container.NetworkStats{}
	cpu := &v.CPUStats.CPUUsage
	for _, p := range list {
		cpu.UsageInUsermode += uint64(p.User + p.Waited) // what has ended is not told apart
		cpu.UsageInKernelmode += uint64(p.System)
		v.MemoryStats.Usage += p.Memory
		v.PidsStats.Current += uint64(p.Threads)
	}
	v.MemoryStats.Limit = machineMemory()
	usage, err := s.b.Usage(c.ID)
	if err != nil {
		return v, err
	}
	if usage != nil {
		byCgroup(&v, usage)
	}
	cpu.TotalUsage = cpu.UsageInUsermode + cpu.UsageInKernelmode
	v.CPUStats.OnlineCPUs = uint32(runtime.NumCPU())
	if v.CPUStats.SystemUsage, err = systemTime(); err != nil {
		return v, err
	}
	for name, t := range traffic {
		v.Networks[name] = container.NetworkStats{
			RxBytes: t.ReceivedBytes, RxPackets: t.ReceivedPackets,
			TxBytes: t.SentBytes, TxPackets: t.SentPackets, TxDropped: t.SentDropped,
		}
	}
	return v, nil
}

// byCgroup has what a container's cgroup tells, which includes processes that have ended, in the place of the sums over
// processes. Clients take the cache of files that can be dropped away from the memory.
func byCgroup(v *container.StatsResponse, u *cgroup.Usage) {
	v.CPUStats.CPUUsage.UsageInUsermode, v.CPUStats.CPUUsage.UsageInKernelmode = uint64(u.User), uint64(u.System)
	v.CPUStats.ThrottlingData = container.ThrottlingData{
		Periods: u.Periods, ThrottledPeriods: u.Throttled, ThrottledTime: uint64(u.Waited),
	}
	if len(u.MemoryStat) > 0 { // else there is no such controller
		v.MemoryStats.Usage, v.MemoryStats.Stats, v.MemoryStats.Failcnt = u.Memory, u.MemoryStat, u.OOMKills
		if u.MemoryLimit > 0 {
			v.MemoryStats.Limit = min(u.MemoryLimit, v.MemoryStats.Limit)
		}
	}
	if u.Pids > 0 {
		v.PidsStats.Current = u.Pids
	}
	v.PidsStats.Limit = u.PidsLimit
}

// procTick is the unit of times in /proc/stat, in nanoseconds: USER_HZ is 100.
const procTick = uint64(10 * time.Millisecond)

// systemTime is the time that all processors have spent, idle or not, in nanoseconds (proc_stat(5)).
func systemTime() (uint64, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	var sum uint64
	for _, f := range fields[min(1, len(fields)):min(9, len(fields))] { // user to steal; guests are in user already
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		sum += n * procTick
	}
	return sum, nil
}

// machineMemory is how much the machine has, in bytes (proc_meminfo(5)); 0 where it is not told.
var machineMemory = sync.OnceValue(func() uint64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemTotal:" {
			n, _ := strconv.ParseUint(fields[1], 10, 64) // 0 says as much
			return n << 10
		}
	}
	return 0
})
