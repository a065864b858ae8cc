package overlay

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkTCPBetweenHosts measures TCP between containers of two hosts, in frames and from socket to socket, sealed
// and plain, by the daemons that users run, and beside them what else there is: the hosts themselves, and flannel with
// the kernel's VXLAN and with its UDP backend, which has a process as well.
//
//	scripts/overlay.sh -v -run '^$' -bench TCPBetweenHosts -benchtime 1x -count 3
//
// Some cells alone, such as -bench 'TCPBetweenHosts/way=(hosts|plain-frames)$', take a quarter of a minute each;
// without flannel's, USERNET_FLANNELD may be any file.
func BenchmarkTCPBetweenHosts(b *testing.B) {
	b.Run("way=hosts", func(b *testing.B) {
		hosts := []*host{newHost(b, 1), newHost(b, 2)}
		for range b.N {
			measureTCP(b, tcpPair{
				start: func(command ...string) *exec.Cmd {
					return hosts[1].command(context.Background(), command[0], command[1:]...)
				},
				client: func(command ...string) result { return hosts[0].run(command[0], command[1:]...) },
				to:     hosts[1].addr(),
			})
		}
	})
	for _, backend := range []string{"vxlan", "udp"} {
		b.Run("way=flannel-"+backend, func(b *testing.B) {
			w := newStore(b, stores[0])
			w.etcdctl("put", flannelKeys+"config", `{"Network":"10.5.0.0/16","Backend":{"Type":"`+backend+`"}}`)
			from, to := newFlannelNode(b, 1), newFlannelNode(b, 2)
			in := func(f *flannelNode, command ...string) *exec.Cmd {
				return exec.Command("nsenter", append([]string{"--net=" + f.container()}, command...)...)
			}
			pair := tcpPair{
				start: func(command ...string) *exec.Cmd { return in(to, command...) },
				client: func(command ...string) (r result) {
					out, err := in(from, command...).CombinedOutput()
					if r.stdout = string(out); err != nil {
						r.code = 1
					}
					return r
				},
				to: to.address(),
			}
			if backend == "udp" {
				pair.daemons = [2]int{from.cmd.Process.Pid, to.cmd.Process.Pid}
			}
			for range b.N {
				measureTCP(b, pair)
			}
		})
	}
	w := newWorld(b, stores[len(stores)-1], 2)
	from, to := w.hosts[0], w.hosts[1]
	for i, way := range []struct {
		name  string
		flags []string
	}{
		{"plain-frames", []string{"-o", "encrypted=false"}},
		{"plain-sockets", []string{"-o", "encrypted=false", "-o", "usernet.tcp=sockets"}},
		{"sealed-frames", nil},
		{"sealed-sockets", []string{"-o", "usernet.tcp=sockets"}},
	} {
		b.Run("way="+way.name, func(b *testing.B) {
			subnet := fmt.Sprintf("10.%d.0.0/24", 81+i)
			create := []string{"network", "create", "-d", "overlay", "--subnet", subnet}
			id := from.ok(append(append(create, way.flags...), way.name)...)
			to.seesNetwork(way.name, id)
			server, client := "server-"+way.name, "client-"+way.name
			to.idle(server, "--network", way.name)
			from.idle(client, "--network", way.name)
			from.pings(client, server)
			for range b.N {
				measureTCP(b, tcpPair{
					start: func(command ...string) *exec.Cmd {
						args := append([]string{"exec", server}, command...)
						return to.command(context.Background(), usernet, args...)
					},
					client:  func(command ...string) result { return from.exec(client, command...) },
					to:      to.address(server, "eth0").String(),
					daemons: [2]int{from.cmd.Process.Pid, to.cmd.Process.Pid},
				})
			}
			from.ok("rm", "-f", client)
			to.ok("rm", "-f", server)
			eventually(b, func() error { // the other host hears of the end of its last container
				if r := from.try("network", "rm", way.name); r.code != 0 {
					return fmt.Errorf("the network is not removed: %v", r)
				}
				return nil
			})
		})
	}
}

// tcpPair is two ends of TCP connections.
type tcpPair struct {
	start   func(command ...string) *exec.Cmd // makes a server's command
	client  func(command ...string) result
	to      string // the server's address
	daemons [2]int // processes of which the processor time is reported; 0: none
}

// measureTCP reports the rates of one stream and of eight, in Gbit/s, the requests of one byte a second, and the
// daemons' processor time for a GiB of one stream.
func measureTCP(b *testing.B, p tcpPair) {
	b.Helper()
	for _, command := range [][]string{{"iperf3", "-s"}, {helper, "tcpserve", ":7007", "echo"}} {
		server := p.start(command...)
		if err := server.Start(); err != nil {
			b.Fatal(err)
		}
		defer func() {
			_ = server.Process.Kill()
			_ = server.Wait()
		}()
	}
	before := p.processor(b)
	gbit, gib := p.iperf(b, 1)
	b.ReportMetric(gbit, "Gbit/s")
	for i, after := range p.processor(b) {
		if p.daemons[i] != 0 {
			b.ReportMetric((after-before[i]).Seconds()/gib, []string{"s/GiB-out", "s/GiB-in"}[i])
		}
	}
	gbit, _ = p.iperf(b, 8)
	b.ReportMetric(gbit, "Gbit/s-8")
	eventually(b, func() error {
		r := p.client(helper, "tcprequests", p.to+":7007", "2")
		n, err := strconv.ParseFloat(strings.TrimSpace(r.stdout), 64)
		if err != nil {
			return fmt.Errorf("requests: %v", r)
		}
		b.ReportMetric(n, "requests/s")
		return nil
	})
}

// iperf returns the rate and the amount of what arrived.
func (p tcpPair) iperf(b *testing.B, streams int) (gbit, gib float64) {
	b.Helper()
	eventually(b, func() error { // it starts, and ends one test before it begins another
		r := p.client("iperf3", "-c", p.to, "-J", "-t", "3", "-P", strconv.Itoa(streams))
		var report struct {
			Error string
			End   struct {
				Received struct {
					Bytes         float64
					BitsPerSecond float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			}
		}
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || report.Error != "" {
			return fmt.Errorf("iperf3: %v: %v", err, r)
		}
		gbit, gib = report.End.Received.BitsPerSecond/1e9, report.End.Received.Bytes/(1<<30)
		return nil
	})
	return gbit, gib
}

// processor is the processor time of both daemons.
func (p tcpPair) processor(b *testing.B) (used [2]time.Duration) {
	b.Helper()
	for i, pid := range p.daemons {
		if pid == 0 {
			continue
		}
		var t unix.Timespec
		clock := int32(^pid<<3 | 2) // as clock_getcpuclockid(3) makes it
		if err := unix.ClockGettime(clock, &t); err != nil {
			b.Fatal(err)
		}
		used[i] = time.Duration(t.Nano())
	}
	return used
}
