package bypass

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// announcement is a message of the kernel's about something of a table.
func announcement(message int, table string) []byte {
	ne := binary.NativeEndian
	name := append([]byte(table), 0)
	body := []byte{unix.NFPROTO_IPV4, 0, 0, 0}
	body = ne.AppendUint16(body, uint16(attrHeader+len(name)))
	body = append(ne.AppendUint16(body, attrTable), name...)
	body = append(body, make([]byte, -len(body)&3)...)
	return message16(unix.NFNL_SUBSYS_NFTABLES<<8|message, body)
}

// message16 puts a header of 16 bytes before a message's body.
func message16(kind int, body []byte) []byte {
	ne := binary.NativeEndian
	b := ne.AppendUint32(nil, uint32(nlmsgHeader+len(body)))
	b = ne.AppendUint16(b, uint16(kind))
	return append(append(b, make([]byte, 10)...), body...)
}

// announcements are what the kernel may say, and whether it is of the container's rules.
var announcements = []struct {
	name     string
	bytes    []byte
	concerns bool
}{
	{"nothing", nil, false},
	{"less than a header", make([]byte, nlmsgHeader-1), false},
	{"a generation", message16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN, make([]byte, 12)), false},
	{"a table of the container's", announcement(unix.NFT_MSG_NEWTABLE, "own"), true},
	{"a name that only begins alike", announcement(unix.NFT_MSG_NEWRULE, "usern"), true},
	{"a rule of the bypass", announcement(unix.NFT_MSG_NEWRULE, tableName), false},
	{"an element of the bypass that is gone", announcement(unix.NFT_MSG_DELSETELEM, tableName), false},
	{"the bypass's table is gone", announcement(unix.NFT_MSG_DELTABLE, tableName), true},
	{"a chain of it is gone", announcement(unix.NFT_MSG_DELCHAIN, tableName), true},
	{"a rule of it is gone", announcement(unix.NFT_MSG_DELRULE, tableName), true},
	{"the DNS stub's table is gone", announcement(unix.NFT_MSG_DELTABLE, "usernet-dns"), false},
	{"a queue", message16(unix.RTM_NEWQDISC, make([]byte, 20)), true},
	{"no attributes", message16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE, make([]byte, nfgenHeader)), true},
	{"another attribute first", message16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE, make([]byte, 32)), true},
	{"a length below the header's", append([]byte{15, 0, 0, 0}, make([]byte, 28)...), true},
	{"a length beyond the end", announcement(unix.NFT_MSG_NEWRULE, tableName)[:24], true},
	{"own, then the container's", slices.Concat(announcement(unix.NFT_MSG_NEWRULE, tableName),
		announcement(unix.NFT_MSG_NEWRULE, "own")), true},
	{"own twice", bytes.Repeat(announcement(unix.NFT_MSG_NEWRULE, "usernet-dns"), 2), false},
}

func TestAnnouncementsOfTheContainersRulesCount(t *testing.T) {
	for _, a := range announcements {
		if got := concernsContainer(a.bytes); got != a.concerns {
			t.Errorf("%s: %v", a.name, got)
		}
	}
}

// FuzzAnnouncements: what is behind an announcement of the container's makes it no less one.
func FuzzAnnouncements(f *testing.F) {
	for _, a := range announcements {
		f.Add(a.bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		first := announcement(unix.NFT_MSG_NEWTABLE, "own")
		_ = concernsContainer(b)
		if !concernsContainer(append(first, b...)) {
			t.Errorf("%x hides what came before", b)
		}
	})
}

// TestWatchTellsOfEachChangeOnce gives a watch a socket that is not the kernel's, and a list of tables.
func TestWatchTellsOfEachChangeOnce(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	path := filepath.Join(t.TempDir(), "ip_tables_names")
	list := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	send := func(b []byte) {
		t.Helper()
		if _, err := unix.Write(pair[1], b); err != nil {
			t.Fatal(err)
		}
	}
	list("")
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := newWatch([]int{fd, pair[0]})
	if !slices.Equal(w.sockets, pair[:1]) || !slices.Equal(w.lists, []int{fd}) {
		t.Fatalf("%d is a list, %d a socket: %+v", fd, pair[0], w)
	}
	own, others := announcement(unix.NFT_MSG_NEWRULE, tableName), announcement(unix.NFT_MSG_NEWRULE, "own")
	for _, c := range []struct {
		name string
		do   func()
		want bool
	}{
		{"nothing", func() {}, false},
		{"what usernet does", func() { send(own) }, false},
		{"a rule", func() { send(others) }, true},
		{"a rule between usernet's own", func() { send(own); send(others); send(own) }, true},
		{"a table of iptables-legacy", func() { list("filter\n") }, true},
		{"the same again", func() { list("filter\n") }, false},
		{"another one", func() { list("filter\nnat\n") }, true},
		{"none any more", func() { list("") }, true},
	} {
		c.do()
		if got := w.Changed(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if w.Changed() {
			t.Errorf("%s: told twice", c.name)
		}
	}
	w.Close()
	if _, err := unix.Write(pair[1], own); err == nil {
		t.Error("a closed watch has its socket open")
	}
	w.Close()
}
