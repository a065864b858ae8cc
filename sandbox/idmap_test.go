package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestSubordinateRangesAreThoseOfTheUser(t *testing.T) {
	const file = `
# a comment
other:100000:65536
user:165536:1000
1000:300000:70000
user:x:5
user:1:0
user:7
userx:1:1
`
	got, err := readRanges(strings.NewReader(file), "user", "1000")
	if want := []idRange{{165536, 1000}, {300000, 70000}}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v, %v; want %v", got, err, want)
	}
}

func TestIDsFollowEachOtherUpToABound(t *testing.T) {
	own := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}}
	for _, c := range []struct {
		first []syscall.SysProcIDMap
		want  string
	}{
		{nil, "[{0 165536 1000} {1000 300000 64536}]"},
		{own, "[{0 1000 1} {1 165536 1000} {1001 300000 64535}]"},
	} {
		got := appendIDs(slices.Clone(c.first), []idRange{{165536, 1000}, {300000, 70000}, {500000, 5}})
		if s := fmt.Sprint(got); s != c.want {
			t.Errorf("%s, want %s", s, c.want)
		}
	}
}

func TestMappedIDsAreCountedWithoutGaps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uid_map")
	for text, want := range map[string]int{
		"         0       1000          1\n":                                   1,
		"         0       1000          1\n         1     165536      65535\n": 65536,
		"         1     165536      65535\n         0       1000          1\n": 65536,
		"         0       1000          1\n       100     165536      65535\n": 1,
		"      1000          0          1\n":                                   1,
		"":                                                                     1,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := mappedIDs(path); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
