package bypass

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/bypass/fwmark"
)

// inside are functions that tests run as root of a network namespace of their own; their output is standard output.
var inside = map[string]func() error{}

const insideVariable = "USERNET_BYPASS_TEST"

func TestMain(m *testing.M) {
	if f := inside[os.Getenv(insideVariable)]; f != nil {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// inNamespace runs one of the functions of inside.
func inNamespace(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), insideVariable+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.Output()
	if err != nil {
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	return string(out)
}

// command runs a program in this namespace.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// listTables loads rules twice, where those that are there have to stay, and prints a table of both families.
func listTables(load func(ipv6 bool) error, table string) error {
	ipv6, err := fwmark.Prepare()
	if err == nil {
		err = load(ipv6)
	}
	if err == nil {
		err = load(ipv6)
	}
	if err != nil {
		return err
	}
	for _, family := range []string{"ip", "ip6"} {
		cmd := exec.Command("nft", "--stateless", "list", "table", family, table)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	return nil
}

func init() {
	inside["ruleset"] = func() error { return listTables(loadRuleset, tableName) }
	inside["ruleset for datagrams"] = func() error { return listTables(loadDatagramRuleset, datagramTable) }
}

// TestRulesetIsWhatTheDocumentSays compares what the kernel has with the texts in comments, where the other family's
// are alike.
func TestRulesetIsWhatTheDocumentSays(t *testing.T) {
	for _, c := range []struct{ loads, table, file string }{
		{"ruleset", tableName, "doc.go"},
		{"ruleset for datagrams", datagramTable, "datagrams.go"},
	} {
		t.Run(c.loads, func(t *testing.T) {
			loaded := notation.Replace(sameFamily.Replace(inNamespace(t, c.loads)))
			text := documentedTable(t, c.file, c.table)
			if loaded != text+text {
				t.Errorf("loaded:\n%s\nwant twice:\n%s", loaded, text)
			}
		})
	}
}

// documentedTable is a table of a file's comments, as nft(8) would list it.
func documentedTable(t *testing.T, file, table string) string {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begin := "table ip " + table + " {\n"
	_, text, _ := strings.Cut(string(source), "//\t"+begin)
	text, _, found := strings.Cut(text, "//\t}\n")
	if !found {
		t.Fatalf("%s has no table %s", file, table)
	}
	text = begin + strings.ReplaceAll(strings.ReplaceAll(text, "//\t", ""), "//\n", "\n") + "}\n"
	return regexp.MustCompile(`\\\n\s*`).ReplaceAllString(text, "")
}

// sameFamily turns what nft(8) says of IPv6 into what it says of IPv4, and of ports of one protocol into that of any.
var sameFamily = strings.NewReplacer("table ip6", "table ip", "ip6 ", "ip ", "ipv6_addr", "ipv4_addr",
	"tcp dport", "th dport", "tcp sport", "th sport", "udp dport", "th dport", "udp sport", "th sport")

// notation turns nft(8)'s way to write some expressions into that of doc.go.
var notation = strings.NewReplacer(
	"ip saddr . th sport . ip daddr . th dport", "SELF", "ip daddr . th dport . ip saddr . th sport", "PEER",
	"@th,104,8 & 0x12 == 0x2 ", "tcp flags syn / syn,ack ", "@th,104,8 & 0x12 == 0x12", "tcp flags syn,ack / syn,ack",
	"@th,104,8 & 0x5 == 0x1 ", "tcp flags fin / fin,rst ", "@th,104,8 & 0x5 != 0x0", "tcp flags & (fin | rst) != 0",
	"@th,104,8 & 0x4 != 0x0", "tcp flags & rst != 0", "@th,104,8 & 0x1 != 0x0", "tcp flags & fin != 0",
	"@th,104,8 & 0x1 == 0x0", "tcp flags & fin == 0",
)
