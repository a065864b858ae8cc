package test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/usernet/usernet/api"
)

// capturing is a `usernet capture` that runs.
type capturing struct {
	d      *daemon
	cmd    *exec.Cmd
	stdout *bytes.Buffer
}

// capture starts one, and waits until it records.
func (d *daemon) capture(args ...string) *capturing {
	d.t.Helper()
	c := &capturing{d: d, cmd: exec.Command(usernet, append([]string{"capture"}, args...)...)}
	c.stdout = &bytes.Buffer{}
	log := filepath.Join(d.t.TempDir(), "capture.log")
	f, err := os.Create(log)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = d.environ(), c.stdout, f
	if err := c.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			c.cmd.Process.Kill()
			c.cmd.Wait()
		}
	})
	eventually(d.t, func() error { return fileHas(log, "capturing\n") })
	return c
}

// end stops it as Ctrl-C does, and returns what it said on standard error.
func (c *capturing) end() string {
	c.d.t.Helper()
	c.cmd.Process.Signal(syscall.SIGINT)
	return c.wait()
}

// wait waits for its end by itself.
func (c *capturing) wait() string {
	c.d.t.Helper()
	err := c.cmd.Wait()
	text := readFile(c.d.t, c.cmd.Stderr.(*os.File).Name())
	if err != nil {
		c.d.t.Fatalf("capture: %v\n%s", err, text)
	}
	return text
}

// tshark reads a capture, and returns the lines that it prints.
func (d *daemon) tshark(path string, args ...string) []string {
	d.t.Helper()
	r := d.command("tshark", append([]string{"-n", "-r", path}, args...)...)
	if r.code != 0 {
		d.t.Fatalf("%v", r)
	}
	return strings.FieldsFunc(r.stdout, func(c rune) bool { return c == '\n' })
}

// TestCapture reads captures with tshark.
func TestCapture(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	dir := t.TempDir()
	d.ok("network", "create", "mynet")
	d.serve("db", []string{"--network", "mynet"}, helper, "tcpserve", ":7", "echo")
	d.idle("web", "--network", "mynet")
	d.idle("other")
	t.Run("a network, by a filter with a container's name", func(t *testing.T) { captureNetwork(d.in(t), dir) })
	t.Run("connections that would bypass the interface", func(t *testing.T) { captureBypass(d.in(t), dir) })
	t.Run("files in turn", func(t *testing.T) { captureRotated(d.in(t), dir) })
	t.Run("into a pipe, with a count", func(t *testing.T) { capturePiped(d.in(t)) })
	t.Run("a container that comes later", func(t *testing.T) { captureLater(d.in(t), dir) })
	t.Run("a reader that does not read", func(t *testing.T) { captureStalled(d.in(t)) })
	t.Run("SIGTERM twice", func(t *testing.T) { captureTerminated(d.in(t), dir) })
	t.Run("super-frames", func(t *testing.T) { captureSuperFrames(d.in(t), dir) })
	t.Run("refusals", func(t *testing.T) {
		d := d.in(t)
		d.fails("vlan is not supported", "capture", "web", "-w", "-", "vlan", "5")
		d.fails("no container or network is called nobody", "capture", "nobody", "-w", "-")
		d.idle("onhost", "--network", "host")
		d.fails("container onhost has no interface", "capture", "onhost", "-w", "-")
		d.fails("network host have no interfaces of usernet's", "capture", "host", "-w", "-")
		d.fails("standard output cannot be rotated", "capture", "web", "--rotate-size", "1m")
		r := d.try("capture", "web", "-w", dir+"/nowhere/x")
		if r.code != 1 || strings.Contains(r.stderr, "packets of") || strings.Contains(r.stderr, "capturing") {
			d.t.Errorf("into a directory that is not there: %v", r)
		}
		d.fails("give one of them", "capture", "web", "-w", "x", "--files", "2")
		d.fails("give a container, a network or --all", "capture", "-w", "x")
	})
	t.Run("Wireshark's own interfaces", func(t *testing.T) { captureExtcap(d.in(t)) })
}

// captureTerminated ends captures as timeout(1) does, which sends SIGTERM twice: they are written to their end.
func captureTerminated(d *daemon, dir string) {
	path := filepath.Join(dir, "terminated.pcapng")
	for range 5 {
		c := d.capture("web", "-w", path)
		ended := make(chan struct{})
		go func() {
			for {
				select {
				case <-ended:
					return
				default:
					c.cmd.Process.Signal(syscall.SIGTERM)
				}
			}
		}()
		said := c.wait()
		close(ended)
		if !strings.Contains(said, "packets of") {
			d.t.Errorf("ended by SIGTERM twice: %s", said)
		}
		d.tshark(path)
	}
}

func captureNetwork(d *daemon, dir string) {
	path := filepath.Join(dir, "net.pcapng")
	c := d.capture("mynet", "-w", path, "tcp", "port", "7", "and", "host", "db")
	h := d.hold("web", "db:7")
	h.echoes("hello")
	h.in.Close()
	d.exec("web", "ping", "-c", "1", "db") // which the filter leaves out
	text := c.end()
	lines := d.tshark(path, "-T", "fields", "-e", "frame.interface_name", "-e", "ip.src", "-e", "tcp.flags.syn",
		"-e", "frame.interface_description", "-e", "ip.proto", "-e", "frame.packet_flags_direction")
	web, db := d.address("web"), d.address("db")
	for _, want := range []string{
		"web@mynet\t" + web + "\t1\tcontainer web on network mynet, " + web + "\t6\t0x00000002", // outbound
		"db@mynet\t" + web + "\t1\tcontainer db on network mynet, " + db + "\t6\t0x00000001",
	} {
		if !strings.Contains(strings.Join(lines, "\n"), want) {
			d.t.Errorf("%q is missing in\n%s", want, strings.Join(lines, "\n"))
		}
	}
	for _, l := range lines {
		if f := strings.Split(l, "\t"); len(f) < 5 || f[4] != "6" {
			d.t.Errorf("the filter let pass %q", l)
		}
	}
	if want := fmt.Sprintf("%d packets of 2 interfaces in %s", len(lines), path); !strings.Contains(text, want) ||
		!strings.Contains(text, " 0 were lost") {
		d.t.Errorf("%q is missing in %s", want, text)
	}
	info := d.command("capinfos", path)
	for _, want := range []string{"usernet ", "pcapng", "network=mynet", "Number of interfaces in file: 2",
		"Filter string = tcp port 7 and host db"} {
		if !strings.Contains(info.stdout, want) {
			d.t.Errorf("capinfos lacks %q: %v", want, info)
		}
	}
	if names := d.command("tshark", "-N", "m", "-r", path).stdout; names == "" {
		d.t.Error("tshark prints nothing")
	}
}

// captureBypass has connections that begin while a capture runs seen whole, and those of before counted.
func captureBypass(d *daemon, dir string) {
	port := freePort()
	listen(d.t, fmt.Sprintf("%s:%d", host4, port), echo)
	target := fmt.Sprintf("%s:%d", host4, port)
	before := d.pastTheGateway(func() *held { return d.hold("web", target) })
	path := filepath.Join(dir, "bypass.pcapng")
	c := d.capture("web", "-w", path, "tcp", "port", fmt.Sprint(port))
	meanwhile := d.hold("web", target)
	meanwhile.echoes("while it runs")
	for _, f := range d.flows("web") {
		if f.Path == "bypass" {
			before.echoes("still there")
		}
	}
	meanwhile.in.Close()
	text := c.end()
	if !strings.Contains(text, "before this capture, and are not in it: 1;") {
		d.t.Errorf("the connection of before is not told: %s", text)
	}
	if out := d.tshark(path, "-Y", `tcp contains "while it runs" && ip.src==`+host4, "-T", "fields",
		"-e", "frame.interface_name"); len(out) == 0 || out[0] != "web@mynet" {
		d.t.Errorf("the echo is not in the capture: %q in %q", out, d.tshark(path))
	}
	before.in.Close()
	d.pastTheGateway(func() *held { return d.hold("web", target) }).in.Close() // as before
}

func captureRotated(d *daemon, dir string) {
	path := filepath.Join(dir, "turn.pcapng")
	c := d.capture("--all", "-w", path, "--rotate-size", "20k", "--files", "2", "icmp", "and", "host", "web")
	d.says("0% packet loss", "web", "ping", "-c", "60", "-i", "0.01", "-s", "1000", "db")
	text := c.end()
	files, _ := filepath.Glob(filepath.Join(dir, "turn-*.pcapng"))
	if len(files) != 2 || !strings.Contains(text, "in 2 files") {
		d.t.Fatalf("%q are there: %s", files, text)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 20<<10 || info.Mode().Perm() != 0o600 {
			d.t.Errorf("%s: %v, %v", f, info, err)
		}
		if lines := d.tshark(f, "-T", "fields", "-e", "frame.interface_name"); len(lines) == 0 {
			d.t.Errorf("%s is no capture of its own: %q", f, lines)
		}
	}
}

func capturePiped(d *daemon) {
	c := exec.Command("sh", "-c", fmt.Sprintf("%s capture --all -c 4 -w - icmp | tshark -n -l -i - -T fields -e icmp.type",
		usernet))
	var out bytes.Buffer
	c.Env, c.Stdout = d.environ(), &out
	if err := c.Start(); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, func() error {
		if list := d.captures(); len(list) != 1 || list[0].Endpoints != 3 {
			return fmt.Errorf("captures: %+v", list)
		}
		return nil
	})
	if out := d.ok("capture", "--list"); !strings.Contains(out, "icmp") {
		d.t.Errorf("the list lacks it: %s", out)
	}
	d.exec("web", "ping", "-c", "1", "db") // four frames, at two interfaces
	if err := c.Wait(); err != nil || strings.Join(strings.Fields(out.String()), " ") != "8 8 0 0" {
		d.t.Errorf("%v: %q", err, out.String())
	}
	eventually(d.t, func() error {
		if list := d.captures(); len(list) != 0 {
			return fmt.Errorf("captures are left: %+v", list)
		}
		return nil
	})
}

func (d *daemon) captures() (list []api.Capture) {
	d.t.Helper()
	d.ask("/usernet/captures", &list)
	return list
}

func captureLater(d *daemon, dir string) {
	path := filepath.Join(dir, "later.pcapng")
	c := d.capture("--all", "-w", path, "icmp")
	d.ok("network", "create", "newnet")
	d.idle("late", "--network", "newnet")
	d.says("0% packet loss", "late", "ping", "-c", "1", d.gateway("late"))
	c.end()
	lines := strings.Join(d.tshark(path, "-T", "fields", "-e", "frame.interface_name"), "\n")
	if !strings.Contains(lines, "late@newnet") {
		d.t.Errorf("the frames of a new container on a new network are missing: %s", lines)
	}
}

// captureStalled has a capture that nobody reads lose frames, and the network go on.
func captureStalled(d *daemon) {
	conn, err := net.Dial("unix", d.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /usernet/capture?network=mynet HTTP/1.1\r\nHost: usernet\r\n\r\n")
	eventually(d.t, func() error {
		if list := d.captures(); len(list) != 1 {
			return fmt.Errorf("captures: %+v", list)
		}
		return nil
	})
	d.serve("sink", []string{"--network", "mynet"}, helper, "tcpserve", ":9", "digest")
	d.says("same 60000000", "web", helper, "tcpsend", "sink:9", "60000000")
	if list := d.captures(); len(list) != 1 || list[0].Lost == 0 || list[0].Frames <= list[0].Lost {
		d.t.Errorf("no frames were lost: %+v", list)
	}
}

// captureSuperFrames has what the container's kernel sent in one piece in the capture as it was, of its true length.
func captureSuperFrames(d *daemon, dir string) {
	path := filepath.Join(dir, "super.pcapng")
	c := d.capture("web", "-w", path, "--snaplen", "100", "tcp", "port", "9")
	d.says("same 3000000", "web", helper, "tcpsend", "sink:9", "3000000")
	c.end()
	longest := 0
	var sum int
	for _, l := range d.tshark(path, "-Y", "ip.src=="+d.address("web"), "-T", "fields", "-e", "frame.len",
		"-e", "frame.cap_len", "-e", "tcp.len") {
		var length, kept, payload int
		if _, err := fmt.Sscan(l, &length, &kept, &payload); err != nil || kept > 100 {
			d.t.Fatalf("%q: %v", l, err)
		}
		longest = max(longest, length)
		sum += payload
	}
	if longest <= 1514 || sum < 3000000 {
		d.t.Errorf("the longest frame has %d bytes, all together %d of payload", longest, sum)
	}
}

// captureExtcap has tshark list and use interfaces of usernet's.
func captureExtcap(d *daemon) {
	home := d.t.TempDir()
	env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home + "/.config"}
	if r := d.command("env", append(env, usernet, "integrate", "wireshark", "--write")...); r.code != 0 {
		d.t.Fatalf("%v", r)
	}
	r := d.command("env", append(env, "tshark", "-D")...)
	for _, want := range []string{"usernet-container-web (usernet: container web)",
		"usernet-network-mynet (usernet: network mynet)", "usernet (usernet: all containers)"} {
		if !strings.Contains(r.stdout, want) {
			d.t.Fatalf("%q is not listed: %v", want, r)
		}
	}
	c := exec.Command("env", append(env, "tshark", "-n", "-l", "-i", "usernet-container-web", "-c", "2", "-f", "icmp",
		"-T", "fields", "-e", "icmp.type")...)
	var out bytes.Buffer
	c.Env, c.Stdout = d.environ(), &out
	if err := c.Start(); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, func() error {
		if len(d.captures()) == 0 {
			return fmt.Errorf("tshark captures nothing")
		}
		return nil
	})
	d.exec("web", "ping", "-c", "1", "db")
	if err := c.Wait(); err != nil || strings.Join(strings.Fields(out.String()), " ") != "8 0" {
		d.t.Errorf("%v: %q", err, out.String())
	}
	if r := d.command("env", append(env, usernet, "integrate", "wireshark", "--undo")...); r.code != 0 {
		d.t.Errorf("%v", r)
	}
	eventually(d.t, func() error {
		if list := d.captures(); len(list) != 0 {
			return fmt.Errorf("captures are left: %+v", list)
		}
		return nil
	})
}
