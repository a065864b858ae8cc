package test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// soakVariable says how long TestSoak runs, such as 1h (make soak).
const soakVariable = "USERNET_SOAK"

// soakSlots is how many containers there are at once, soakWorkers how many things are done with them at once.
const soakSlots, soakWorkers = 50, 4

// A soak is mixed load on one daemon, with faults.
type soak struct {
	d     *daemon
	sink  string       // digest server on the host
	deaf  string       // server on the host that reads nothing
	ports int          // host port of slot 0; the others follow
	epoch atomic.Int64 // odd while the daemon is down
	slots [soakSlots]struct {
		sync.RWMutex // read: the container is used; written: it comes or goes
		running      bool
	}
	counts sync.Map // of what was done, *atomic.Int64 by name
}

// TestSoak has fifty containers join, leave, publish, resolve and transfer with digests while another attacks the
// daemon and the daemon is killed again and again. Without the variable it is short.
func TestSoak(t *testing.T) {
	length, pause := 12*time.Second, 5*time.Second
	if s := os.Getenv(soakVariable); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatalf("%s: %v: give a duration such as 2m", soakVariable, err)
		}
		pause = 15 * time.Second
	}
	s := &soak{d: startDaemon(t)}
	port := freePort()
	s.sink, s.deaf = net.JoinHostPort(host4, strconv.Itoa(port)), net.JoinHostPort(host4, strconv.Itoa(port+1))
	listen(t, s.deaf, func(c *net.TCPConn) {
		<-t.Context().Done()
		c.Close()
	})
	for range soakSlots / 10 {
		s.ports = freePort() // ten each, of which the last begins the highest
	}
	s.ports -= soakSlots - 10
	server := exec.Command(helper, "tcpserve", s.sink, "digest")
	startAndWaitFor(t, server, "listening\n")
	s.d.ok("network", "create", "--ipv6", "soak")

	// Everything once, so that what is made at the first use is there; then all go.
	s.load(3*time.Second, 0)
	s.empty()
	before := s.level()
	s.load(length, pause)
	s.empty()
	s.settle(before)
	var done []string
	s.counts.Range(func(k, v any) bool {
		done = append(done, fmt.Sprintf("%d %s", v.(*atomic.Int64).Load(), k))
		return true
	})
	t.Logf("%v with %d containers: %s", length, soakSlots, strings.Join(done, ", "))
}

// load runs the workers for a while, and kills the daemon at each pause (0: never).
func (s *soak) load(length, pause time.Duration) {
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() { s.hostile(stop) })
	for range soakWorkers {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s.step()
				}
			}
		})
	}
	for end := time.Now().Add(length); time.Now().Before(end) && !s.d.t.Failed(); {
		if pause == 0 || time.Until(end) < pause {
			<-time.After(time.Until(end)) // the load's length, not a wait for anything
			break
		}
		<-time.After(pause)
		s.epoch.Add(1)
		s.d.stop(syscall.SIGKILL)
		s.d.start()
		s.epoch.Add(1)
		s.count("kills of the daemon")
	}
	close(stop)
	group.Wait()
}

// step is one thing that containers do.
func (s *soak) step() {
	i, j := rand.IntN(soakSlots), rand.IntN(soakSlots)
	slot := &s.slots[i]
	slot.RLock()
	running := slot.running
	slot.RUnlock()
	if !running {
		s.join(i)
		return
	}
	size := strconv.Itoa(1 + rand.IntN(4_000_000))
	name, peer := soakName(i), soakName(j)
	switch rand.IntN(8) {
	case 0:
		s.leave(i)
	case 1, 2:
		s.use("transfers between containers", "same "+size, i, j, "exec", name, helper, "tcpsend", peer+":80", size)
	case 3, 4:
		s.use("transfers to the host", "same "+size, i, i, "exec", name, helper, "tcpsend", s.sink, size)
	case 5:
		s.use("transfers to published ports", "same "+size, i, i, "exec", name, helper, "tcpsend",
			net.JoinHostPort(host4, strconv.Itoa(s.ports+i)), size)
	case 6:
		s.use("names resolved", ".", i, j, "exec", name, "dig", "+short", "+search", peer)
	default:
		s.use("pings", " 0% packet loss", i, j, "exec", name, "ping", "-c1", "-W5", peer)
	}
}

// soakAttacks are what a hostile container does, in turn and for some seconds each: $0 is the helper, $1 a server of
// the host that reads nothing. It is root in its sandbox. That the others do not notice is what use and settle find
// out.
var soakAttacks = []struct{ what, script string }{
	{"floods of DNS questions", `exec "$0" dnsflood 127.0.0.11:53 example.test`},
	{"a DNS server's answers that stay unread", `for i in $(seq 50); do "$0" udpempty 127.0.0.11:53 & done; wait`},
	{"connections that stall", `for i in $(seq 30); do sleep 60 | "$0" tcpstall send "$1" >/dev/null & done; wait`},
	{"connections that nobody answers", `for i in $(seq 100); do "$0" tcpdial 203.0.113.$i:80 60s >/dev/null & done; wait`},
	{"a new UDP association for each datagram", `while :; do for i in $(seq 50); do "$0" udpempty 192.0.2.100:9 & done; wait; done`},
	{"a hosts file of 50 MB", `yes 192.0.2.9 giant | head -c 50000000 >/etc/hosts; head -c 50000000 /dev/zero >/etc/resolv.conf; sleep 1`},
	{"its interface goes and comes", `ip link set eth0 down; ip link set eth0 up; ip addr flush dev eth0; sleep 1`},
}

// hostile has a container misbehave until stop is closed.
func (s *soak) hostile(stop <-chan struct{}) {
	const name = "hostile"
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		attack := soakAttacks[i%len(soakAttacks)]
		s.d.try("rm", "-f", name) // its files and its interface are as it left them
		if r := s.d.try("run", "-d", "--name", name, "--network", "soak", "--", "sleep", "1000000"); r.code != 0 {
			continue // the daemon was killed
		}
		s.d.command("timeout", "60", usernet, "exec", name, "timeout", "-s", "KILL", "4", "sh", "-c", attack.script,
			helper, s.deaf)
		s.count("attacks: " + attack.what)
	}
}

func soakName(i int) string { return fmt.Sprintf("soak%d", i) }

func (s *soak) count(what string) {
	n, _ := s.counts.LoadOrStore(what, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

// quiet says whether the daemon was up all the time since an epoch was read.
func (s *soak) quiet(epoch int64) bool { return epoch%2 == 0 && s.epoch.Load() == epoch }

// use runs usernet with the containers of two slots there, and wants words in its output. What a kill of the daemon may
// break may fail; that bytes arrive changed may not.
func (s *soak) use(what, words string, i, j int, args ...string) {
	s.slots[min(i, j)].RLock() // in order, so that nobody waits for each other
	defer s.slots[min(i, j)].RUnlock()
	if i != j {
		s.slots[max(i, j)].RLock()
		defer s.slots[max(i, j)].RUnlock()
	}
	if !s.slots[i].running || !s.slots[j].running {
		return
	}
	epoch := s.epoch.Load()
	r := s.d.command("timeout", append([]string{"60", usernet}, args...)...)
	switch {
	case strings.Contains(r.stdout, words):
		s.count(what)
	case strings.Contains(r.stderr, "the server got"):
		s.d.t.Errorf("%s: bytes have changed: %v", what, r)
	case s.quiet(epoch):
		s.d.t.Errorf("%s: %v", what, r)
	default:
		s.count("broken off by a kill")
	}
}

func (s *soak) join(i int) {
	slot := &s.slots[i]
	slot.Lock()
	defer slot.Unlock()
	if slot.running {
		return
	}
	epoch := s.epoch.Load()
	s.d.try("rm", "-f", soakName(i)) // a kill may have left it
	r := s.d.try("run", "-d", "--name", soakName(i), "--network", "soak", "-p", fmt.Sprintf("%d:80", s.ports+i), "--",
		helper, "tcpserve", ":80", "digest")
	if r.code != 0 {
		if s.quiet(epoch) {
			s.d.t.Errorf("join: %v", r)
		}
		return
	}
	for deadline := time.Now().Add(patience); ; {
		r = s.d.try("logs", soakName(i))
		if strings.Contains(r.stdout, "listening") {
			break
		}
		if time.Now().After(deadline) || !s.quiet(epoch) {
			if s.quiet(epoch) {
				s.d.t.Errorf("join: the server does not start: %v", r)
			}
			return
		}
	}
	slot.running = true
	s.count("joins")
}

func (s *soak) leave(i int) {
	slot := &s.slots[i]
	slot.Lock()
	defer slot.Unlock()
	epoch := s.epoch.Load()
	if r := s.d.try("rm", "-f", soakName(i)); r.code == 0 {
		s.count("leaves")
	} else if slot.running && s.quiet(epoch) {
		s.d.t.Errorf("leave: %v", r)
	}
	slot.running = false
}

func (s *soak) empty() {
	if ids := strings.Fields(s.d.ok("ps", "-aq")); len(ids) > 0 {
		s.d.ok(append([]string{"rm", "-f"}, ids...)...)
	}
	for i := range s.slots {
		s.slots[i].running = false
	}
}

// level is what the daemon holds.
type level struct{ goroutines, descriptors, threads, memory int }

func (s *soak) level() level {
	s.d.t.Helper()
	number := func(pattern, text string) int {
		m := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if m == nil {
			s.d.t.Fatalf("no %q in %s", pattern, text)
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			s.d.t.Fatal(err)
		}
		return n
	}
	var info struct{ NGoroutines, NFd int }
	s.d.ask("/info", &info)
	status := readFile(s.d.t, fmt.Sprintf("/proc/%d/status", s.d.cmd.Process.Pid))
	return level{
		goroutines: info.NGoroutines, descriptors: info.NFd,
		threads: number(`Threads:\s+(\d+)`, status), memory: number(`VmRSS:\s+(\d+) kB`, status) / 1024,
	}
}

// settle waits until the daemon holds no more than before: some connections and one timer's work more or less, the
// threads that Go never gives back, and memory that is yet to be collected.
func (s *soak) settle(before level) {
	s.d.t.Helper()
	var now level
	eventually(s.d.t, func() error {
		now = s.level()
		if now.goroutines > before.goroutines+10 || now.descriptors > before.descriptors+10 ||
			now.threads > before.threads+16 || now.memory > 2*before.memory+64 {
			return fmt.Errorf("the daemon holds %+v, and held %+v before (memory in MiB)", now, before)
		}
		return nil
	})
	s.d.t.Logf("held before: %+v, after: %+v (memory in MiB)", before, now)
}
