package sandbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProbeFindsWhatASandboxNeeds: where tests that make sandboxes run, all of it is there.
func TestProbeFindsWhatASandboxNeeds(t *testing.T) {
	found, err := probe()
	if err != nil || found.Mount != "" || found.Hostname != "" {
		t.Errorf("%+v, %v", found, err)
	}
	var names []string
	for _, r := range Check() {
		names = append(names, r.Name)
	}
	for _, name := range []string{"user namespaces", "/dev/net/tun", "host names", "a /proc for each sandbox"} {
		if !slices.Contains(names, name) {
			t.Errorf("check says nothing of %s: %q", name, names)
		}
	}
}

// TestWhatIsMissingIsSaid with the option of the container around that gives it.
func TestWhatIsMissingIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		r      Requirement
		needed bool
		says   []string
	}{
		"no namespaces": {checkUserNS(probed{}, unix.EPERM), true, []string{"cannot be made", "seccomp=unconfined"}},
		"too many":      {checkUserNS(probed{}, unix.ENOSPC), true, []string{"too many"}},
		"no mounts": {checkUserNS(probed{Mount: "refused"}, nil), true,
			[]string{"refused", "usernet integrate nesting"}},
		"no host names": {checkHostname(probed{Hostname: "refused"}), false, []string{"refused", "--hostname"}},
		"a covered proc": {checkProc(probed{Proc: "refused"}), false,
			[]string{"systempaths=unconfined", "unmask=ALL", "proc=none"}},
	} {
		if c.r.OK || c.r.Needed != c.needed {
			t.Errorf("%s: %+v", name, c.r)
		}
		for _, s := range c.says {
			if !strings.Contains(c.r.Detail+"; "+c.r.Fix, s) {
				t.Errorf("%s: %q is not said: %+v", name, s, c.r)
			}
		}
	}
}

// TestOnlyAFiltersRefusalIsTolerated.
func TestOnlyAFiltersRefusalIsTolerated(t *testing.T) {
	for err, want := range map[error]bool{unix.EPERM: true, unix.ENOSYS: true, unix.EINVAL: false, unix.EFAULT: false} {
		if refusedByFilter(fmt.Errorf("name: %w", err)) != want {
			t.Errorf("%v: not %v", err, want)
		}
	}
	if refusedByFilter(errors.New("other")) {
		t.Error("any error is a filter's")
	}
}
