package fabric

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkBetweenHosts measures frames of containers on two hosts, and beside them what else there is on the same kind
// of namespaces: the hosts themselves, the kernel's VXLAN device, and wireguard-go (USERNET_WIREGUARD_GO names its
// program; without it that column is left out). Daemons with all that they do are measured in test/overlay.
//
//	go build -o /tmp/wireguard-go golang.zx2c4.com/wireguard
//	USERNET_WIREGUARD_GO=/tmp/wireguard-go go test -run '^$' -bench BetweenHosts -benchtime 1x -count 5 ./overlay/fabric
func BenchmarkBetweenHosts(b *testing.B) {
	for _, mtu := range []int{1500, 9000} {
		for _, way := range []struct {
			name  string
			start func(testing.TB, int) benchPair
		}{
			{"host", hostPair},
			{"kernel", kernelPair},
			{"plain", func(t testing.TB, mtu int) benchPair { return usernetPair(t, mtu, false) }},
			{"wireguard-go", wireguardPair},
			{"sealed", func(t testing.TB, mtu int) benchPair { return usernetPair(t, mtu, true) }},
		} {
			if way.name == "wireguard-go" && os.Getenv("USERNET_WIREGUARD_GO") == "" {
				continue
			}
			b.Run(fmt.Sprintf("mtu=%d/way=%s", mtu, way.name), func(b *testing.B) {
				for range b.N {
					measure(b, way.start(b, mtu))
				}
			})
		}
	}
}

// benchPair is two containers and what carries their traffic.
type benchPair struct {
	from, to *netns
	addr     string // of to
	onlyTCP  bool
	cpu      func() (from, to time.Duration)
}

// The ports of what is measured.
const (
	benchPort   = "5201" // iperf3's own
	requestPort = "5202"
)

// hostPair is two hosts without containers: what connections between containers are held against.
func hostPair(t testing.TB, mtu int) benchPair {
	h := underlay(t, mtu)
	return benchPair{from: h[0], to: h[1], addr: "10.99.0.2", onlyTCP: true}
}

func usernetPair(t testing.TB, mtu int, isSealed bool) benchPair {
	h := startHosts(t, mtu, isSealed)
	return benchPair{from: h[0].container, to: h[1].container, addr: "10.9.0.2",
		cpu: func() (time.Duration, time.Duration) {
			return h[0].cpu(t), h[1].cpu(t)
		}}
}

// underlay is two namespaces with a veth pair.
func underlay(t testing.TB, mtu int) (h [2]*netns) {
	h[0], h[1] = newNetns(t), newNetns(t)
	veth(t, h[0], h[1], "h1", "h2", mtu)
	h[0].ip(t, "addr add 10.99.0.1/24 dev h1")
	h[1].ip(t, "addr add 10.99.0.2/24 dev h2")
	return h
}

func kernelPair(t testing.TB, mtu int) benchPair {
	h := underlay(t, mtu)
	var c [2]*netns
	for i := range h {
		c[i] = newNetns(t)
		h[i].ip(t, fmt.Sprintf("link add vx0 mtu %d type vxlan id 5 local 10.99.0.%d remote 10.99.0.%d dstport 4789", mtu-50, i+1, 2-i),
			"link set vx0 netns "+c[i].pid())
		c[i].ip(t, fmt.Sprintf("addr add 10.9.0.%d/24 dev vx0", i+1), "link set vx0 up")
	}
	return benchPair{from: c[0], to: c[1], addr: "10.9.0.2"}
}

func wireguardPair(t testing.TB, mtu int) benchPair {
	h := underlay(t, mtu)
	keys := [2]string{}
	public := [2]string{}
	for i := range h {
		keys[i] = strings.TrimSpace(h[i].run(t, "wg", "genkey"))
		public[i] = strings.TrimSpace(h[i].run(t, "sh", "-c", "echo "+keys[i]+" | wg pubkey"))
	}
	var pids [2]int
	for i := range h {
		pids[i] = startWireguard(t, h[i], os.Getenv("USERNET_WIREGUARD_GO"), keys[i],
			fmt.Sprintf("peer %s allowed-ips 10.9.0.0/24 endpoint 10.99.0.%d:51820", public[1-i], 2-i))
		h[i].ip(t, fmt.Sprintf("addr add 10.9.0.%d/24 dev wg0", i+1), fmt.Sprintf("link set wg0 mtu %d up", mtu-60))
	}
	return benchPair{from: h[0], to: h[1], addr: "10.9.0.2", cpu: func() (time.Duration, time.Duration) {
		return processTime(t, pids[0]), processTime(t, pids[1])
	}}
}

// processTime is the processor time that a process has used.
func processTime(t testing.TB, pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	const ticks = 100 // a second, USER_HZ (proc(5))
	return time.Duration(user+system) * (time.Second / ticks)
}

const benchSeconds = 3

func measure(b *testing.B, p benchPair) {
	b.StopTimer()
	server := exec.Command("iperf3", "-s", "-B", p.addr)
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(b, p.to.in(server.Start))
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	waitFor(b, "iperf3", func() bool {
		return p.from.in(func() error {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(p.addr, benchPort), time.Second)
			if err == nil {
				_ = c.Close()
			}
			return err
		}) == nil
	})
	b.StartTimer()
	gbit, bytes, cpu := iperf(b, p, "-P", "1")
	b.ReportMetric(gbit, "Gbit/s")
	if p.cpu != nil {
		gib := bytes / (1 << 30)
		b.ReportMetric(cpu[0].Seconds()/gib, "s/GiB-out")
		b.ReportMetric(cpu[1].Seconds()/gib, "s/GiB-in")
	}
	gbit, _, _ = iperf(b, p, "-P", "8")
	b.ReportMetric(gbit, "Gbit/s-8")
	b.ReportMetric(requests(b, p), "requests/s")
	if p.onlyTCP {
		return
	}
	_, n, _ := iperf(b, p, "-u", "-b", "0", "-l", "1300")
	b.ReportMetric(n, "datagrams/s")
}

// iperf returns what arrived: of TCP the rate in Gbit/s and the bytes, of UDP the datagrams a second in place of the
// bytes.
func iperf(b *testing.B, p benchPair, args ...string) (gbit, bytes float64, cpu [2]time.Duration) {
	b.Helper()
	var before [2]time.Duration
	if p.cpu != nil {
		before[0], before[1] = p.cpu()
	}
	text := ""
	waitFor(b, "idle iperf3", func() bool { // the server ends one test before it begins another
		var out []byte
		_ = p.from.in(func() (err error) {
			out, err = exec.Command("iperf3",
				append([]string{"-c", p.addr, "-J", "-t", strconv.Itoa(benchSeconds)}, args...)...).CombinedOutput()
			return err
		})
		text = string(out)
		return !strings.Contains(text, `"error"`)
	})
	if p.cpu != nil {
		cpu[0], cpu[1] = p.cpu()
		cpu[0] -= before[0]
		cpu[1] -= before[1]
	}
	var r struct {
		End struct {
			Sum      struct{ Packets, Lost_packets, Seconds float64 }
			Received struct {
				Bytes         float64
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		b.Fatalf("iperf3: %v: %s", err, text)
	}
	if args[0] == "-u" {
		return 0, (r.End.Sum.Packets - r.End.Sum.Lost_packets) / r.End.Sum.Seconds, cpu
	}
	return r.End.Received.BitsPerSecond / 1e9, r.End.Received.Bytes, cpu
}

// requests is how many one-byte requests a second are answered over one connection.
func requests(b *testing.B, p benchPair) float64 {
	b.Helper()
	var l net.Listener
	must(b, p.to.in(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(p.addr, requestPort))
		return err
	}))
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 1)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}()
	var c net.Conn
	must(b, p.from.in(func() (err error) {
		c, err = net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
		return err
	}))
	defer c.Close()
	buf := make([]byte, 1)
	n, start := 0, time.Now()
	for time.Since(start) < 2*time.Second {
		_, err := c.Write(buf)
		must(b, err)
		_, err = c.Read(buf)
		must(b, err)
		n++
	}
	return float64(n) / time.Since(start).Seconds()
}
