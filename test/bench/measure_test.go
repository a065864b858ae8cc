package main

import (
	"encoding/json"
	"encoding/xml"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(test.values); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.values, got, test.want)
		}
	}
}

// sample is a report with a cell where more is better and one where less is.
func sample() *report {
	r := &report{samples: map[key][]float64{}, Tools: map[string]string{}}
	fast := cell{group: groupTCP, name: "container → host", unit: "Gbit/s", mtu: 1500}
	slow := cell{group: groupOther, name: "ping", unit: "µs", mtu: 1500, lower: true}
	for tool, v := range map[string]float64{"usernet": 11, "slirp4netns": 1, "pasta": 2, kernel: 36} {
		r.add(tool, fast, v)
	}
	for tool, v := range map[string]float64{"usernet": 50, "slirp4netns": 100, "pasta": 200} {
		r.add(tool, slow, v)
	}
	r.add("usernet", cell{group: groupDNS, name: "lost", unit: "queries", lower: true}, 0)
	return r
}

func TestReportComparesWithTheBestPeer(t *testing.T) {
	r, dir := sample(), t.TempDir()
	o := options{others: 100, json: filepath.Join(dir, "j"), svg: filepath.Join(dir, "s"),
		report: filepath.Join(dir, "m")}
	var out strings.Builder
	if err := r.write(&out, o); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| container → host | Gbit/s | 1500 | 11.0 | 1.00 | 2.00 | – | 5.50× | 36.0 |", "| ping | µs | 1500 | 50.0 | 100 | 200 | – | 2.00× | – |", "| lost | queries | 0 |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the tables lack %s:\n%s", want, &out)
		}
	}
	text, err := os.ReadFile(o.json)
	var back report
	if err != nil || json.Unmarshal(text, &back) != nil || len(back.Results) != 8 {
		t.Errorf("%v: %s", err, text)
	}
	if text, err = os.ReadFile(o.svg); err != nil || xml.Unmarshal(text, new(struct{})) != nil || !strings.Contains(
		string(text), "36.0") {
		t.Errorf("%v: %s", err, text)
	}
}

func TestNoTablesOfABusyMachine(t *testing.T) {
	r := sample()
	r.Others = 0.31
	var out strings.Builder
	if err := r.write(&out, options{others: 10}); err == nil || !strings.Contains(err.Error(), "31 %") ||
		out.Len() > 0 {
		t.Errorf("%v, and printed %q", err, &out)
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 0}, {[]float64{9, 10, 12}, 0.15}, {[]float64{0, 0}, 0}} {
		if got := spread(test.values); got != test.want {
			t.Errorf("spread(%v) = %v, want %v", test.values, got, test.want)
		}
	}
}

// TestOwnProcessorTime: a tool's helpers count, those that have ended too; what it runs for others does not.
func TestOwnProcessorTime(t *testing.T) {
	s, ok := parseStat("7 (a (strange) name) S 3 7 7 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 1 0")
	if want := (stat{"a (strange) name", 3, 33, 77}); !ok || s != want {
		t.Errorf("%+v, %v; want %+v", s, ok, want)
	}
	if _, ok := parseStat("7 (short) S 3"); ok {
		t.Error("a line without all fields is read")
	}
	processes := map[int]stat{
		1: {"bench", 0, 1000, 0}, 2: {"usernet", 1, 10, 5}, 3: {"usernet", 2, 7, 0}, 4: {"iperf3", 3, 500, 500},
		5: {"bench", 3, 600, 0}, 6: {"pasta", 1, 80, 0},
	}
	want := map[int]stat{2: processes[2], 3: processes[3]}
	if got := ownProcesses(processes, 2, "bench"); !reflect.DeepEqual(got, want) {
		t.Errorf("its processes are %v, want %v", got, want)
	}
	if used, err := processorTime(os.Getpid()); err != nil || used <= 0 || used > time.Hour {
		t.Errorf("this process has used %v, %v", used, err)
	}
	if ownTicks(os.Getpid()) != 0 { // this program is a workload's
		t.Error("the generator counts as the tool")
	}
}

func TestChoiceOfTools(t *testing.T) {
	if list, err := tools("usernet"); err != nil || len(list) != 1 || list[0].name != "usernet" {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := tools("usernet,nobody"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("%v", err)
	}
}

func TestGenerator(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	go serveGenerator(address)
	for end := time.Now().Add(10 * time.Second); ; {
		if _, err := arrived(address, wantCount); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	const length = 100 * time.Millisecond
	for name, f := range map[string]func() (generated, error){
		"rr":      func() (generated, error) { return roundTrips(address, length) },
		"connect": func() (generated, error) { return connections(address, length) },
		"udp":     func() (generated, error) { return datagrams(address, length, 64) },
		"udpback": func() (generated, error) { return datagramsBack(address, length, 64) },
		"udpgso":  func() (generated, error) { return superDatagrams(address, length, 1400) },
	} {
		if g, err := f(); err != nil || g.Rate <= 0 || g.Loss < 0 || g.Loss > 1 {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
}

// TestPairings: what stands in for another program has its columns beside it, and is no peer of usernet's.
func TestPairings(t *testing.T) {
	r := sample()
	r.add("usernet-slirp4netns", cell{group: groupTCP, name: "container → host", unit: "Gbit/s", mtu: 1500}, 8)
	r.add("usernet-pasta", cell{group: groupStart, name: "memory", unit: "MiB", lower: true}, 4)
	r.add("pasta", cell{group: groupStart, name: "memory", unit: "MiB", lower: true}, 6)
	var out strings.Builder
	if err := r.write(&out, options{others: 100}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| container → host | Gbit/s | 1500 | 11.0 | 1.00 | 2.00 | – | 5.50× | 36.0 |",
		"| usernet in slirp4netns's place | slirp4netns | ratio |", "| container → host | Gbit/s | 1500 | 8.00 | 1.00 | 8.00× |",
		"| usernet in pasta's place | pasta | ratio |", "| memory | MiB | – | 4.00 | 6.00 | 1.50× |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the tables lack %s:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "without TAPs") {
		t.Errorf("a table has columns of what was not measured:\n%s", &out)
	}
}
