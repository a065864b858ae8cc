//go:build faults

package faults

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
)

// Enabled says whether this program was built with faults.
const Enabled = true

type rule struct {
	text   []byte
	action string
}

var (
	rules   = parse(os.Getenv("USERNET_FAULTS"))
	release = make(chan struct{}) // closed on SIGUSR2: what hangs goes on
)

func init() {
	if len(rules) == 0 {
		return
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2)
	go sync.OnceFunc(func() { <-signals; close(release) })()
}

func parse(variable string) map[Point][]rule {
	m := map[Point][]rule{}
	for _, text := range strings.Split(variable, ",") {
		if f := strings.Split(text, "="); len(f) == 3 {
			m[Point(f[0])] = append(m[Point(f[0])], rule{[]byte(f[1]), f[2]})
		}
	}
	return m
}

// Check fails as the rules of the point say.
func Check(p Point, b []byte) {
	for _, r := range rules[p] {
		if !bytes.Contains(b, r.text) {
			continue
		}
		switch r.action {
		case "panic":
			panic(fmt.Sprintf("injected at %s", p))
		case "hang":
			<-release
		}
	}
}
