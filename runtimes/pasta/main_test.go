package pasta

import (
	"strings"
	"testing"
)

// TestWhatIsNotDoneIsRefusedByName: no option is accepted that is not acted on.
func TestWhatIsNotDoneIsRefusedByName(t *testing.T) {
	for args, want := range map[string]string{
		"":                      "--netns",
		"sh -c true":            "usernet run",
		"-T 80 1":               "--tcp-ns",
		"-U all 1":              "--udp-ns",
		"-p /tmp/x 1":           "--pcap",
		"--runas nobody 1":      "--runas",
		"--freebind 1":          "--freebind",
		"--no-udp 1":            "--no-udp",
		"--hostname x 1":        "--hostname",
		"--outbound-if6 eth9 1": "--outbound-if6",
	} {
		var stdout, stderr strings.Builder
		if code := Main("pasta", "test", strings.Fields(args), &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), want) {
			t.Errorf("pasta %s: status %d, %q does not name %s", args, code, stderr.String(), want)
		}
	}
	var stdout, stderr strings.Builder
	if code := Main("pasta", "test", []string{"--version"}, &stdout, &stderr); code != 0 || !strings.HasPrefix(stdout.String(), "pasta ") {
		t.Errorf("--version: status %d, %q", code, stdout.String())
	}
}
