package main

import (
	"encoding/json"
	"encoding/xml"
	"net"
	"os"
	"path/filepath"
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

// measured is a report with a cell where more is better and one where less is.
func measured() *report {
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
	r, dir := measured(), t.TempDir()
	o := options{json: filepath.Join(dir, "j"), svg: filepath.Join(dir, "s"), report: filepath.Join(dir, "m")}
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
	if text, err = os.ReadFile(o.svg); err != nil || xml.Unmarshal(text, new(struct{})) != nil || !strings.Contains(string(text), "36.0") {
		t.Errorf("%v: %s", err, text)
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
