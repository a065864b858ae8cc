package test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestWorld holds the world to what the other tests rely on, without usernet.
func TestWorld(t *testing.T) {
	if os.Geteuid() != userID {
		t.Errorf("tests run as uid %d, not %d", os.Geteuid(), userID)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{"CapPrm", "CapEff", "CapAmb"} {
		if !strings.Contains(string(status), set+":\t0000000000000000") {
			t.Errorf("the tests have capabilities: %s", status)
		}
	}
	for _, address := range []string{peer4, peer6} {
		if out, err := exec.Command("ping", "-c1", "-W5", address).CombinedOutput(); err != nil {
			t.Errorf("ping %s: %v\n%s", address, err, out)
		}
	}
	for _, test := range []struct {
		address string
		want    error
	}{
		{net.JoinHostPort(peer4, "81"), syscall.ECONNREFUSED},
		{net.JoinHostPort(peer6, "81"), syscall.ECONNREFUSED},
		{net.JoinHostPort(unreachable4, "81"), syscall.EHOSTUNREACH},
	} {
		_, err := net.DialTimeout("tcp", test.address, time.Second)
		if !errors.Is(err, test.want) {
			t.Errorf("connecting to %s: %v, want %v", test.address, err, test.want)
		}
	}
	_, err = net.DialTimeout("tcp", net.JoinHostPort(blackHole4, "81"), time.Second)
	if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
		t.Errorf("connecting to a black hole: %v, want a timeout", err)
	}
	addrs, err := net.LookupHost("peer.example.test")
	if err != nil || len(addrs) != 1 || addrs[0] != peer4 {
		t.Errorf("the resolver says %v, %v", addrs, err)
	}
	if got := asRoot(t, "id -u"); got != "0" {
		t.Errorf("root of the world is uid %s", got)
	}
}
