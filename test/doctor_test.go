package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/hang"
)

// planted are secrets, one for each place that has some. No part of any may be in a report.
var planted = []string{"env-s3cr3t-value", "label-s3cr3t-value", "netlabel-s3cr3t", "argument-s3cr3t",
	"urlpass-s3cr3t", "bgp-s3cr3t-word",
	"metrics-s3cr3t-token", "comment-s3cr3t", "logtoken-s3cr3t", "logurl-s3cr3t", "variable-s3cr3t", "execenv-s3cr3t",
	"c2VjcmV0IGtleSBvZiB0aGUgY2x1c3RlciwgMzIgYiE="}

// TestDoctor plants secrets everywhere, and looks for each in the reports: with a daemon, with one that hangs, and
// without.
func TestDoctor(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	state, config := filepath.Join(d.dir, "state"), filepath.Join(d.dir, "config", "usernet")
	if err := os.MkdirAll(config, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		config + "/config.toml": fmt.Sprintf("# comment-s3cr3t\n[serve]\nlog-level = \"warn\"\ncluster-store = \"etcd://root:urlpass-s3cr3t@192.0.2.4:2379\"\n"+
			"bgp-password-file = \"%[1]s/bgp\"\nmetrics-token-file = \"%[1]s/token\"\ncluster-key = \"%[1]s/key\"\n", config),
		config + "/bgp":      "bgp-s3cr3t-word\n",
		config + "/token":    "metrics-s3cr3t-token\n",
		config + "/key":      "c2VjcmV0IGtleSBvZiB0aGUgY2x1c3RlciwgMzIgYiE=\n",
		d.dir + "/other.log": "logged: token=logtoken-s3cr3t bgp-s3cr3t-word etcd://me:logurl-s3cr3t@host/\nthe last line\n",
		state + "/daemon.log": "level=INFO msg=x token=logtoken-s3cr3t\nlevel=INFO url=consul://me:logurl-s3cr3t@host/ bgp-s3cr3t-word metrics-s3cr3t-token\n" +
			"level=INFO msg=y value=env-s3cr3t-value label-s3cr3t-value netlabel-s3cr3t\nkey c2VjcmV0IGtleSBvZiB0aGUgY2x1c3RlciwgMzIgYiE=\n" +
			"level=ERROR msg=z event=fault\nlevel=INFO msg=\"the last line\"\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.ok("network", "create", "--label", "owner=netlabel-s3cr3t", "--egress", "deny", "closed")
	d.ok("run", "-d", "--name", "web", "--network", "closed", "-e", "PASSWORD=env-s3cr3t-value", "--label",
		"key=label-s3cr3t-value",
		"--", "sh", "-c", "sleep 1000 # argument-s3cr3t")
	d.exec("web", helper, "tcpdial", peer4+":80", "5s")
	d.exec("web", helper, "l2raw", "eth0", "3", "ffffffffffff0202020202020806") // from a MAC that is another's
	doctor := func(args ...string) result {
		return d.command("env", append([]string{"XDG_CONFIG_HOME=" + filepath.Dir(config), "XDG_STATE_HOME=" + d.dir +
			"/nothing",
			"USERNET_CLUSTER_STORE=etcd://u:variable-s3cr3t@192.0.2.5", usernet, "doctor"}, args...)...)
	}
	check := func(what, report string) {
		t.Helper()
		for _, secret := range planted {
			if strings.Contains(report, secret) {
				t.Errorf("%s has %q:\n%s", what, secret, report)
			}
		}
		for _, m := range regexp.MustCompile(`usernet explain ([a-z0-9-]+)`).FindAllStringSubmatch(report, -1) {
			d.ok("explain", m[1])
		}
	}

	r := doctor()
	check("the report", r.stdout+r.stderr)
	for _, want := range []string{
		"== Problems", "usernet explain a-connection-is-refused-or-gets-no-answer",
		"usernet explain a-fault-in-usernet",
		"usernet explain frames-are-dropped", "Version: ", "net.ipv4.ping_group_range: ", "ok       ",
		"serve.log-level = warn",
		"serve.cluster-store = (left out)", "USERNET_CLUSTER_STORE (", "closed: driver bridge",
		"web: running, network closed",
		"egress_prohibited: 1", "dropped mac 3", "Descriptors: ", "This host is in no cluster.", "usernet.db",
		"the last line",
	} {
		if r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("%q is missing: %v", want, r)
		}
	}

	packed := filepath.Join(d.dir, "report.tar.gz")
	if r := doctor("-o", packed); r.code != 0 || !strings.Contains(r.stdout, "PROBLEM") {
		t.Errorf("to a file: %v", r)
	}
	if info, err := os.Stat(packed); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	r = d.command("tar", "xzOf", packed, "usernet-report/report.txt")
	check("the file", r.stdout)
	if r.code != 0 || !strings.Contains(r.stdout, "dropped mac 3") {
		t.Errorf("unpacked: %v", r)
	}

	// One that hangs.
	pid := d.cmd.Process.Pid
	hang.Stop(t, pid)
	began := time.Now()
	r = doctor()
	_ = syscall.Kill(pid, syscall.SIGCONT)
	check("the report of a daemon that hangs", r.stdout+r.stderr)
	if r.code != 0 || !strings.Contains(r.stdout, "usernet explain the-daemon-hangs") || !strings.Contains(r.stdout,
		"== Check\nok") {
		t.Errorf("with a daemon that hangs: %v", r)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("with a daemon that hangs it takes %v", took)
	}
	// None.
	r = doctor("--host", d.dir+"/nothing.sock", "--log", d.dir+"/other.log")
	check("the report without a daemon", r.stdout+r.stderr)
	if r.code != 0 || !strings.Contains(r.stdout, "usernet explain no-daemon-answers") || !strings.Contains(r.stdout,
		"the last line") {
		t.Errorf("without a daemon: %v", r)
	}
}

// TestADaemonThatHangs: a command says what it waits for, and ends where it only asks.
func TestADaemonThatHangs(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	pid := d.cmd.Process.Pid
	hang.Stop(t, pid)
	r := d.try("ps")
	_ = syscall.Kill(pid, syscall.SIGCONT)
	for _, want := range []string{
		"the daemon at " + d.socket + " has not answered for", "usernet doctor", "the usernet daemon does not answer",
		"See: usernet explain the-daemon-hangs",
	} {
		if r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("%q is missing: %v", want, r)
		}
	}
	d.ok("ps") // it goes on
}
