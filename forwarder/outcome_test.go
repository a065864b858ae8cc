package forwarder

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBypassOutcomeIsToldForItsDestination: that the container answered or did not, and nothing of other errors.
func TestBypassOutcomeIsToldForItsDestination(t *testing.T) {
	dst := fmt.Sprintf("172.30.0.1:%d", listen(t, func(c *net.TCPConn) { _ = c.Close() }))
	for _, test := range []struct {
		what    string
		connect error
		told    []string
	}{
		{"it answers", nil, []string{dst + " true"}},
		{"it does not", context.DeadlineExceeded, []string{dst + " false"}},
		{"it refuses", unix.ECONNREFUSED, nil},
		{"its address is in use", unix.EADDRNOTAVAIL, nil},
	} {
		t.Run(test.what, func(t *testing.T) {
			var told []string
			f, _ := fakeWorld(t, func(c *Config) {
				c.Socket = func(_ context.Context, _ netip.Addr, outside netip.AddrPort, outbound bool) (int, error) {
					if outside.String() != dst || !outbound {
						t.Errorf("a socket for %s, outbound %v", outside, outbound)
					}
					fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
					if err == nil {
						err = unix.Close(fds[1]) // the container ends at once
					}
					return fds[0], err
				}
				c.BypassOutcome = func(_ netip.Addr, outside netip.AddrPort, answered bool) {
					told = append(told, fmt.Sprint(outside, " ", answered))
				}
				c.connect = func(int) error { return test.connect }
			})
			s := newFakeSYN(dst)
			s.bypass = true
			done := make(chan struct{})
			go func() { f.HandleTCP(s); close(done) }()
			select {
			case <-s.decided:
			case <-time.After(30 * time.Second):
				t.Fatal("nothing was decided")
			}
			_ = f.Close()
			<-done
			if !slices.Equal(told, test.told) {
				t.Errorf("told %v, want %v", told, test.told)
			}
		})
	}
}
