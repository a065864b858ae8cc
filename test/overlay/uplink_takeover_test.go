package overlay

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// takeOver has another daemon take the place of the one that runs.
func (h *host) takeOver() {
	h.t.Helper()
	old, ended, log := h.cmd, h.ended, h.log
	flags := h.flags
	h.launch(append(flags, "--takeover")...)
	h.flags = flags
	select {
	case <-ended:
	case <-time.After(patience):
		h.t.Fatalf("the old daemon does not end: %s", h.logText())
	}
	_ = log.Close()
	if code := old.ProcessState.ExitCode(); code != 0 {
		h.t.Errorf("the old daemon ended with %d: %s", code, h.logText())
	}
	h.answers()
}

// TestAnUplinkIsTakenOver: a daemon takes another's place on a physical network, while bytes flow; and a macvtap that
// is made anew is used again, once it is the user's, by a daemon that may not open its file itself.
func TestAnUplinkIsTakenOver(t *testing.T) {
	h := newHost(t, 1)
	l := newLAN(t, h)
	l.serveDHCP("198.51.100.100", "198.51.100.150")
	h.macvtap("mt5", "passthru", 4705)
	h.start()
	h.ok("network", "create", "-d", "macvlan", "-o", "parent=mt5", "pub")
	h.serve("web", []string{"--network", "pub"}, helper, "tcpserve", ":80", "digest")
	web := h.address("web", "eth0").String()
	const size = "300000000"
	sent := make(chan string, 1)
	go func() {
		out, err := exec.CommandContext(t.Context(), "nsenter", "--net="+lanNS, helper, "tcpsend", web+":80",
			size).CombinedOutput()
		sent <- fmt.Sprint(string(out), err)
	}()
	h.takeOver()
	if out := <-sent; !strings.Contains(out, "same "+size) {
		t.Errorf("a connection across the takeover: %s", out)
	}
	acks := strings.Count(l.read("log"), "DHCPACK")
	l.logged(acks+2, "DHCPACK", web)

	// A macvtap that is made anew has another file, which the daemon uses without an end of its own.
	rootIn(t, h.ns(), "ip", "link", "del", "mt5")
	eventually(t, func() error {
		if log := h.logText(); !strings.Contains(log, "the uplink is gone") {
			return fmt.Errorf("nothing is said of the device: %s", tail(log, 20))
		}
		return nil
	})
	h.macvtap("mt5", "passthru", 4706)
	reaches(t, lanNS, web)
	if a := h.address("web", "eth0").String(); a != web {
		t.Errorf("web has %s, and had %s", a, web)
	}
	h.idle("other", "--network", "pub")
	h.pings("other", "198.51.100.1")
	if h.cmd.ProcessState != nil || strings.Contains(h.logText(), "usernet serve --takeover") {
		t.Errorf("the daemon needs to be replaced: %s", tail(h.logText(), 20))
	}
}
