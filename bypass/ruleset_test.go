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

func init() {
	inside["ruleset"] = func() error {
		ipv6, err := fwmark.Prepare()
		if err == nil {
			err = loadRuleset(ipv6)
		}
		if err == nil {
			err = loadRuleset(ipv6) // what is there stays
		}
		if err != nil {
			return err
		}
		for _, family := range []string{"ip", "ip6"} {
			cmd := exec.Command("nft", "--stateless", "list", "table", family, tableName)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			if err := cmd.Run(); err != nil {
				return err
			}
		}
		return nil
	}
}

// TestRulesetIsWhatTheDocumentSays compares what the kernel has with the text of doc.go, where the other family's is
// alike.
func TestRulesetIsWhatTheDocumentSays(t *testing.T) {
	loaded := inNamespace(t, "ruleset")
	source, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(source), "//\ttable ip usernet {\n")
	text, _, found := strings.Cut(text, "//\t}\n")
	if !found {
		t.Fatal("doc.go has no table; loaded:\n" + loaded)
	}
	text = "table ip usernet {\n" + strings.ReplaceAll(strings.ReplaceAll(text, "//\t", ""), "//\n", "\n") + "}\n"
	text = regexp.MustCompile(`\\\n\s*`).ReplaceAllString(text, "")
	loaded = notation.Replace(strings.NewReplacer("table ip6", "table ip", "ip6 ", "ip ", "ipv6_addr", "ipv4_addr", "tcp dport", "th dport", "tcp sport", "th sport").Replace(loaded))
	if want := text + text; loaded != want {
		t.Errorf("loaded:\n%s\nwant:\n%s", loaded, want)
	}
}

// notation turns nft(8)'s way to write some expressions into that of doc.go.
var notation = strings.NewReplacer(
	"ip saddr . th sport . ip daddr . th dport", "SELF", "ip daddr . th dport . ip saddr . th sport", "PEER",
	"@th,104,8 & 0x12 == 0x2 ", "tcp flags syn / syn,ack ", "@th,104,8 & 0x12 == 0x12", "tcp flags syn,ack / syn,ack",
	"@th,104,8 & 0x5 == 0x1 ", "tcp flags fin / fin,rst ", "@th,104,8 & 0x5 != 0x0", "tcp flags & (fin | rst) != 0",
	"@th,104,8 & 0x4 != 0x0", "tcp flags & rst != 0", "@th,104,8 & 0x1 != 0x0", "tcp flags & fin != 0",
	"@th,104,8 & 0x1 == 0x0", "tcp flags & fin == 0",
)
