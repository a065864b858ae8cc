package test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestExecFlags(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("c1", "-e", "A=1", "-w", "/")
	for _, test := range []struct {
		name, want string
		flags      []string
		command    []string
	}{
		{"environment", "2\n", []string{"-e", "A=2"}, []string{"sh", "-c", "echo $A"}},
		{"the container's environment", "1\n", nil, []string{"sh", "-c", "echo $A"}},
		{"file", "3\n", []string{"--env-file", d.write("env", "A=3\n")}, []string{"sh", "-c", "echo $A"}},
		{"directory", "/usr\n", []string{"-w", "/usr"}, []string{"pwd"}},
		{"user", "7 8\n", []string{"-u", "7:8"}, []string{"sh", "-c", "echo $(id -u) $(id -g)"}},
		{"user alone", "7\n", []string{"--user", "7"}, []string{"id", "-u"}},
	} {
		args := append(append(append([]string{"exec"}, test.flags...), "c1"), test.command...)
		if r := d.try(args...); r.code != 0 || r.stdout != test.want {
			t.Errorf("%s: wanted %q: %v", test.name, test.want, r)
		}
	}
	if r := d.commandInput("hello\n", usernet, "exec", "-i", "c1", "cat"); r.stdout != "hello\n" {
		t.Errorf("%v", r)
	}
	if r := d.try("exec", "c1", "sh", "-c", "exit 7"); r.code != 7 {
		t.Errorf("%v", r)
	}
	if r := d.try("exec", "nobody", "true"); r.code != 125 || !strings.Contains(r.stderr, "No such container: nobody") {
		t.Errorf("%v", r)
	}
	flag := d.dir + "/flag"
	if out := d.ok("exec", "-d", "-e", "TEXT=written", "c1", "sh", "-c", "echo $TEXT >"+flag); out != "" {
		t.Errorf("exec -d prints %q", out)
	}
	eventually(t, func() error { return fileHas(flag, "written") })
}

func TestLogsFlags(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.container("c1", nil, "sh", "-c", "echo one; echo two; echo three; echo bad >&2; exec sleep 1000000")
	d.logged("c1", "bad")
	d.logged("c1", "three")
	if out := d.ok("logs", "c1"); out != "one\ntwo\nthree" {
		t.Errorf("%q", out)
	}
	if r := d.try("logs", "--tail", "0", "c1"); r.stdout+r.stderr != "" {
		t.Errorf("%v", r)
	}
	if r := d.try("logs", "-n", "2", "c1"); strings.Count(r.stdout+r.stderr, "\n") != 2 {
		t.Errorf("%v", r)
	}
	if out := d.ok("logs", "-t", "c1"); !strings.HasPrefix(out, "20") || !strings.Contains(out, "Z two\n") {
		t.Errorf("%q", out)
	}
	if r := d.try("logs", "--since", "2999-01-01", "c1"); r.stdout+r.stderr != "" {
		t.Errorf("%v", r)
	}
	if out := d.ok("logs", "--since", "1h", "--until", "2999-01-01", "c1"); out != "one\ntwo\nthree" {
		t.Errorf("%q", out)
	}
	d.fails("invalid value \"x\" for --tail", "logs", "--tail", "x", "c1")
	d.fails("invalid time", "logs", "--since", "yesterday", "c1")
	d.fails("No such container: nobody", "logs", "nobody")

	d.container("c2", nil, "sh", "-c", "echo begin; while ! test -e "+d.dir+"/go; do sleep 0.05; done; echo end")
	followed := make(chan string)
	go func() {
		cmd := exec.Command(usernet, "logs", "-f", "c2")
		cmd.Env = d.environ()
		out, _ := cmd.CombinedOutput()
		followed <- string(out)
	}()
	d.write("go", "")
	if out := <-followed; out != "begin\nend\n" {
		t.Errorf("logs -f prints %q", out)
	}
}

func TestRenameAndWait(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("first", "--network", "mynet")
	d.idle("other", "--network", "mynet")
	d.ok("rename", "first", "second")
	d.says(" 0% packet loss", "other", "ping", "-c1", "-W5", "second")
	if r := d.exec("other", "ping", "-c1", "-W2", "first"); r.code == 0 {
		t.Errorf("the old name is still there: %v", r)
	}
	d.fails("is already in use by container", "rename", "second", "other")
	d.fails("Renaming a container with the same name as its current name", "rename", "second", "second")
	d.fails("Invalid container name", "rename", "second", "a b")

	d.container("ends", nil, "sh", "-c", "exit 3")
	d.container("ends-too", nil, "sh", "-c", "sleep 0.2; exit 4")
	if out := d.ok("wait", "ends", "ends-too"); out != "3\n4" {
		t.Errorf("wait prints %q", out)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	id := d.ok("network", "create", "mynet")
	c := d.idle("web", "--network", "mynet", "--label", "team=a")
	d.ok("rename", "web", "shop")
	d.ok("network", "disconnect", "mynet", "shop")
	d.ok("kill", "shop")
	d.ok("wait", "shop")
	d.ok("rm", "shop")
	d.ok("network", "rm", "mynet")

	lines := d.ok("events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}} {{.Actor.ID}}")
	var want []string
	for _, e := range []string{"network create", "container create", "network connect", "container start",
		"container rename", "network disconnect",
		"container kill", "container die", "container destroy", "network destroy"} {
		kind, _, _ := strings.Cut(e, " ")
		want = append(want, e+" "+map[string]string{"network": id, "container": c}[kind])
	}
	if lines != strings.Join(want, "\n") {
		t.Errorf("events are\n%s\nwant\n%s", lines, strings.Join(want, "\n"))
	}
	for _, test := range []struct{ filter, want string }{
		{"event=rename", fmt.Sprintf("container rename %s (image=, name=shop, oldName=/web, team=a)", c)},
		{"event=create", fmt.Sprintf("network create %s (name=mynet, type=bridge)", id)},
		{"event=connect", fmt.Sprintf("network connect %s (container=%s, name=mynet, type=bridge)", id, c)},
		{"event=disconnect", fmt.Sprintf("network disconnect %s (container=%s, name=mynet, type=bridge)", id, c)},
		{"event=destroy", fmt.Sprintf("network destroy %s (name=mynet, type=bridge)", id)},
		{"event=die", "exitCode=137"},
		{"event=kill", "signal=9"},
		{"label=team=a", "container start"},
	} {
		out := d.ok("events", "--since", "1h", "--until", "0s", "-f", test.filter)
		if !strings.Contains(out, test.want) {
			t.Errorf("events -f %s lack %q: %s", test.filter, test.want, out)
		}
	}
	out := d.ok("network", "events", "--since", "1h", "--until", "0s", "--format", "{{.Action}}")
	if out != "create\nconnect\ndisconnect\ndestroy" {
		t.Errorf("network events are %q", out)
	}
	d.ok("network", "prune", "-f")
	if out := d.ok("events", "--since", "1h", "--until", "0s", "-f", "event=prune"); !strings.Contains(out,
		"network prune  (reclaimed=0)") {
		t.Errorf("prune is no event: %q", out)
	}
	if out := d.ok("events", "--since", "1h", "--until", "0s", "-f", "type=network", "-f", "event=create", "--format", "json"); !strings.Contains(out, `"Action":"create"`) {
		t.Errorf("%s", out)
	}
	d.fails("invalid filter 'colour'", "events", "--until", "0s", "-f", "colour=red")
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("web", "--network", "mynet")
	d.idle("gone")
	d.ok("kill", "gone")
	d.ok("wait", "gone")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"exec", ""}, "web"},
		{[]string{"stop", "w"}, "web"},
		{[]string{"stop", "web", ""}, ""},
		{[]string{"rm", ""}, "gone web"},
		{[]string{"inspect", ""}, "bridge gone host mynet none web"},
		{[]string{"network", "rm", "my"}, "mynet"},
		{[]string{"network", "connect", ""}, "bridge host mynet none"},
		{[]string{"network", "connect", "mynet", ""}, "gone web"},
		{[]string{"run", "--network", "container:"}, "container:web"},
		{[]string{"run", "--network", "m"}, "mynet"},
		{[]string{"network", "ls", "--filter", "d"}, "dangling= driver="},
		{[]string{"kill", "-s", "U"}, "USR1 USR2"},
		{[]string{"network", "create", ""}, ""},
		{[]string{"network", "create", "--egress", "d"}, "deny deny,no-rebind"},
		{[]string{"network", "create", "-o", "usernet.host"}, "usernet.host_loopback=false usernet.host_loopback=true"},
		{[]string{"network", "create", "-o", "com.docker.network.driver"}, "com.docker.network.driver.mtu="},
		{[]string{"run", "--egress", "a"}, "allow allow,no-rebind"},
		{[]string{"network", "connect", "--driver-opt", "usernet.o"}, "usernet.offload=false usernet.offload=true"},
	} {
		var got []string
		for _, line := range strings.Split(d.ok(append([]string{"__completeNoDesc"}, test.args...)...), "\n") {
			if !strings.HasPrefix(line, ":") && line != "" {
				got = append(got, line)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != test.want {
			t.Errorf("%q completes to %q, want %q", test.args, got, test.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out := d.ok("completion", shell); !strings.Contains(out, "__complete") {
			t.Errorf("completion %s prints %q", shell, out)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for _, test := range []struct {
		code  int
		words string
		args  []string
	}{
		{125, "unknown flag: --nosuch\nSee 'usernet network ls --help'", []string{"network", "ls", "--nosuch"}},
		{125, "unknown flag: --nosuch", []string{"run", "--nosuch", "--", "true"}},
		{1, `unknown command "nosuch" for "usernet network"`, []string{"network", "nosuch"}},
		{1, `unknown command "nosuch" for "usernet"`, []string{"nosuch"}},
		{1, "accepts 1 arg(s), received 0", []string{"network", "create"}},
		{1, "requires at least 1 arg(s)", []string{"network", "rm"}},
		{1, "invalid filter \"x\"", []string{"ps", "-f", "x"}},
		{1, "template parsing error", []string{"ps", "--format", "{{.Names"}},
		{1, "no such object: nobody", []string{"inspect", "nobody"}},
		{1, "network nothing not found", []string{"network", "inspect", "nothing"}},
		{1, "only unix sockets are possible", []string{"-H", "tcp://localhost:2375", "ps"}},
	} {
		if r := d.try(test.args...); r.code != test.code || !strings.Contains(r.stderr, test.words) {
			t.Errorf("wanted status %d and %q: %v", test.code, test.words, r)
		}
	}
	d.idle("c1")
	if out := d.ok("inspect", "-f", "{{.NetworkSettings.IPAddress}} {{.Name}}", "c1"); out != d.address("c1")+" /c1" {
		t.Errorf("inspect -f prints %q", out)
	}
	if out := d.ok("inspect", "--type", "network", "-f", "{{.Name}}", "bridge"); out != "bridge" {
		t.Errorf("inspect -f prints %q", out)
	}
	d.fails("template:", "inspect", "-f", "{{.NoSuchField}}", "c1")
}
