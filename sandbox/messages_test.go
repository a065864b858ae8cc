package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// loopbackPort is a port of this machine that the kernel chooses.
var loopbackPort = netip.MustParseAddrPort("127.0.0.1:0")

// listenAnywhere makes a UDP and a TCP socket with one port. Other programs of this machine have some by one protocol.
func listenAnywhere(t *testing.T) (pc *net.UDPConn, ln *net.TCPListener) {
	t.Helper()
	var err error
	for range stubTries {
		if pc, ln, err = listenBoth(loopbackPort); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return pc, ln
}

// connPair is two connected sockets that keep messages apart.
func connPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	a, f, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	b, err = connOf(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

// newFile is an empty file.
func newFile(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// fakeInit answers requests with replies, one for each, and the second after the signal to start; the first has files
// with it. nil: it ends instead.
func fakeInit(c *net.UnixConn, files []*os.File, answers ...any) <-chan []startRequest {
	done := make(chan []startRequest, 1)
	go func() {
		var got []startRequest
		for i, a := range answers {
			var q startRequest
			if err := readStart(c, &q); err != nil {
				break
			}
			got = append(got, q)
			if i == 1 && readStart(c, new(startSignal)) != nil {
				break
			}
			if a == nil {
				break
			}
			var fds []int
			for _, f := range files {
				if i == 0 {
					fds = append(fds, int(f.Fd()))
				}
			}
			if send(c, a, fds) != nil {
				break
			}
		}
		_ = c.Close()
		done <- got
	}()
	return done
}

func TestProceedTakesReportsApart(t *testing.T) {
	files := Files{Hosts: "h\n", ResolvConf: "r\n", Hostname: "chosen"}
	ready, setUp := startReply{Ready: true}, startReply{SetUp: true}
	for _, c := range []struct {
		name     string
		files    int // that come with the first reply
		reports  []any
		says     string // in the error; "": none
		code     int    // of an *ExitError; 0: it is another one
		requests int
	}{
		{"it runs without having set up", 0, []any{ready}, "0 files came from the sandbox's init, not 3", 125, 1},
		{"set up, then it runs", 3, []any{setUp, ready}, "", 0, 2},
		{"it is not found", 0, []any{startReply{Error: "not found", Code: 127}}, "not found", 127, 1},
		{"set up, then not executable", 3, []any{setUp, startReply{Error: "denied", Code: 126}}, "denied", 126, 2},
		{"a file is missing", 2, []any{setUp, ready}, "2 files came from the sandbox's init, not 3", 125, 1},
		{"a file too many", 4, []any{setUp, ready}, "4 files came from the sandbox's init, not 3", 125, 1},
		{"the init ends", 0, []any{nil}, "ended before the command ran", 0, 1},
		{"the init ends when it has set up", 3, []any{setUp, nil}, "ended before the command ran", 0, 2},
		{"nonsense", 1, []any{"text"}, "ended before the command ran", 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			ours, theirs := connPair(t)
			var etc []*os.File
			for range c.files {
				etc = append(etc, newFile(t, "etc"))
			}
			p := &Process{control: ours, spec: Spec{Command: []string{"x"}},
				etc: etcFiles{files: map[string]*os.File{}}}
			done := fakeInit(theirs, etc, c.reports...)
			err := p.Proceed(files)
			_ = ours.Close()
			var exit *ExitError
			if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) ||
				errors.As(err, &exit) != (c.code != 0) || exit != nil && exit.Code != c.code {
				t.Errorf("%v; want %q, status %d", err, c.says, c.code)
			}
			if p.signals.running != (err == nil) {
				t.Errorf("the command runs: %v", p.signals.running)
			}
			got := <-done
			if len(got) != c.requests {
				t.Errorf("%d requests, want %d", len(got), c.requests)
			}
			for _, q := range got {
				if q.Hostname != "chosen" || !slices.Equal(q.Etc, files.names()) || q.Spec.Command[0] != "x" {
					t.Errorf("request %+v", q)
				}
			}
			if c.files == 3 {
				for i, name := range files.names() {
					if text, err := os.ReadFile(etc[i].Name()); err != nil || string(text) != files.text(name) {
						t.Errorf("%s: %q, %v", name, text, err)
					}
				}
			} else if len(p.etc.files) > 0 {
				t.Errorf("it has files: %v", p.etc.files)
			}
			p.etc.close()
		})
	}
}

func TestRequestsHaveABound(t *testing.T) {
	ours, theirs := connPair(t)
	p := &Process{control: ours}
	buf := make([]byte, maxMessage)
	for _, text := range []string{strings.Repeat("x", 1<<16), strings.Repeat("x", maxMessage-2)} {
		if err := p.request(text); err != nil {
			t.Errorf("%d bytes: %v", len(text), err)
			continue
		}
		if n, err := theirs.Read(buf); err != nil || n != len(text)+2 { // with its quotes
			t.Errorf("%d bytes of %d, %v", n, len(text), err)
		}
	}
	var exit *ExitError
	if err := p.request(strings.Repeat("x", maxMessage-1)); !errors.As(err, &exit) || exit.Code != 125 {
		t.Errorf("one byte too many: %v", err)
	}
	_ = theirs.Close()
	if err := p.request("x"); err == nil || errors.As(err, &exit) || !strings.Contains(err.Error(), "gone") {
		t.Errorf("nobody reads: %v", err)
	}
}

// TestSignalsWaitForTheCommand has a program in the place of the init.
func TestSignalsWaitForTheCommand(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &Process{pid: cmd.Process.Pid, done: make(chan struct{})}
	for range 2 * maxEarlySignals {
		if err := p.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	if n := len(p.signals.early); n != maxEarlySignals {
		t.Errorf("%d signals wait, want %d", n, maxEarlySignals)
	}
	p.runs()
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v", err)
	}
	if !p.signals.running || p.signals.early != nil {
		t.Errorf("running %v, %d signals wait", p.signals.running, len(p.signals.early))
	}
	close(p.done)
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := p.Signal(s); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%v, ended: %v", s, err)
		}
	}
	if err := p.Signal(unknownSignal{}); err == nil {
		t.Error("an unknown signal was passed on")
	}
}

type unknownSignal struct{}

func (unknownSignal) String() string { return "unknown" }
func (unknownSignal) Signal()        {}

func TestKillWaitsForNoCommand(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &Process{pid: cmd.Process.Pid, done: make(chan struct{})}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v", err)
	}
}

// TestStatusIsThatOfAShell: a status of wait(2) has the exit status in its second byte, the signal in its first.
func TestStatusIsThatOfAShell(t *testing.T) {
	for status, want := range map[syscall.WaitStatus]int{
		0:         0,
		1 << 8:    1,
		125 << 8:  125,
		255 << 8:  255,
		1:         129,
		9:         137,
		15:        143,
		0x80 | 11: 139, // with a core dump
		143 << 8:  143,
	} {
		p := &Process{done: make(chan struct{}), status: status}
		close(p.done)
		if got, err := p.Wait(); err != nil || got != want {
			t.Errorf("%#x: %d, %v; want %d", uint32(status), got, err, want)
		}
	}
}

// TestChildOfARoleIsTheOneItNames answers as entry's stage and as a role do.
func TestChildOfARoleIsTheOneItNames(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes []byte
		pid   int    // 0: an error
		says  string // in it
	}{
		{"a pid", binary.NativeEndian.AppendUint32(nil, 4711), 4711, ""},
		{"an error", []byte(`{"Error":"no such namespace","Code":125}`), 0, "no such namespace"},
		{"a reply without an error", []byte(`{"Ready":true}`), 0, errNoAnswer.Error()},
		{"nonsense", []byte("nonsense"), 0, errNoAnswer.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			ours, theirs := connPair(t)
			p := &Process{control: ours, cmd: exec.Command("true")}
			if err := p.cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := theirs.Write(c.bytes); err != nil {
				t.Fatal(err)
			}
			err := p.awaitChild()
			if p.pid != c.pid || (err == nil) != (c.pid != 0) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("pid %d, %v", p.pid, err)
			}
			if p.cmd.ProcessState == nil {
				t.Error("the process that made it was not waited for")
			}
		})
	}
}

func TestUserCommandIsReadFromItsBeginning(t *testing.T) {
	f, err := userCommand{"/bin/sh", []string{"sh", "-c", "x"}, []string{"A=1"}, nil}.file()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got userCommand
	if err := json.NewDecoder(f).Decode(&got); err != nil || got.Path != "/bin/sh" || len(got.Args) != 3 ||
		got.Limits != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// served is one end of requests that serve answers.
func served(t *testing.T, serve func(body []byte, answer *net.UnixConn, files []*os.File)) *requester {
	t.Helper()
	ours, theirs := connPair(t)
	ended := make(chan error, 1)
	go func() { ended <- serveRequests(theirs, serve) }()
	t.Cleanup(func() {
		_ = ours.Close()
		if err := <-ended; err != nil {
			t.Errorf("the asking end is gone: %v", err)
		}
	})
	return &requester{conn: ours}
}

func TestRequestsWithoutAnAnswersSocketAreDropped(t *testing.T) {
	c := served(t, func(body []byte, answer *net.UnixConn, files []*os.File) {
		_ = send(answer, len(files), nil)
	})
	file := newFile(t, "file")
	many := slices.Repeat([]int{int(file.Fd())}, maxRequestFiles+1)
	for _, fds := range [][]int{nil, {int(file.Fd())}, many} {
		if err := send(c.conn, "dropped", fds); err != nil {
			t.Fatal(err)
		}
	}
	for n := range maxRequestFiles {
		answer, err := c.request("counted", slices.Repeat([]*os.File{file}, n)...)
		if err != nil {
			t.Fatal(err)
		}
		got := -1
		if _, err := receive(answer, &got); err != nil || got != n {
			t.Errorf("%d files came, %d were sent: %v", got, n, err)
		}
		_ = answer.Close()
	}
	answer, err := c.request("too many", slices.Repeat([]*os.File{file}, maxRequestFiles)...)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	if _, err := receive(answer, new(int)); !errors.Is(err, errNoHelper) {
		t.Errorf("a request that was dropped: %v", err)
	}
}

// TestSlowRequestsDelayNoOthers: the first is answered after the second.
func TestSlowRequestsDelayNoOthers(t *testing.T) {
	second := make(chan struct{})
	c := served(t, func(body []byte, answer *net.UnixConn, _ []*os.File) {
		if string(body) == `"first"` {
			<-second
		}
		_ = send(answer, string(body), nil)
	})
	var answers []*net.UnixConn
	for _, name := range []string{"first", "second"} {
		answer, err := c.request(name)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Close()
		answers = append(answers, answer)
	}
	for _, i := range []int{1, 0} {
		var got string
		if _, err := receive(answers[i], &got); err != nil || got != []string{`"first"`, `"second"`}[i] {
			t.Errorf("%d: %q, %v", i, got, err)
		}
		if i == 1 {
			close(second)
		}
	}
}

// TestOpenersAnswersAreToldApart answers each question in each way.
func TestOpenersAnswersAreToldApart(t *testing.T) {
	for _, c := range []struct {
		name    string
		reply   any // nil: none
		files   int
		says    string // in an error of each question; "": none
		missing bool   // a namespace at a path does not exist
		opens   bool
	}{
		{"a namespace", openReply{Namespace: NamespaceID{1, 2}, Inside: Namespaces{PID: NamespaceID{3, 4}}}, 2, "",
			false,
			true},
		{"an error", openReply{Error: "not allowed"}, 0, "not allowed", false, false},
		{"an error with a file", openReply{Error: "not allowed"}, 1, "not allowed", false, false},
		{"nothing at the path", openReply{Error: "none", Missing: true}, 0, "", true, false},
		{"no answer", nil, 0, errNoHelper.Error(), false, false},
		{"nonsense", "text", 1, "unmarshal", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := newFile(t, "namespace")
			r := served(t, func(_ []byte, answer *net.UnixConn, _ []*os.File) {
				if c.reply != nil {
					_ = send(answer, c.reply, slices.Repeat([]int{int(file.Fd())}, c.files))
				}
			})
			says := func(err error) bool { return err != nil && c.says != "" && strings.Contains(err.Error(), c.says) }
			files, err := r.open(Target{Pid: 1})
			if (err == nil) != c.opens || c.opens && len(files) != c.files || !c.opens && c.says != "" && !says(err) {
				t.Errorf("open: %d files, %v", len(files), err)
			}
			closeAll(files)
			dev, ino, err := r.namespace("/path")
			if errors.Is(err, os.ErrNotExist) != c.missing || c.opens && (err != nil || dev != 1 || ino != 2) ||
				c.says != "" && !says(err) {
				t.Errorf("namespace: %d, %d, %v", dev, ino, err)
			}
			in, err := r.namespacesOf(1)
			if c.opens && (err != nil || in.PID != NamespaceID{3, 4}) || c.says != "" && !says(err) {
				t.Errorf("namespaces: %+v, %v", in, err)
			}
		})
	}
}

// TestAgentsAnswersAreTakenApart answers a request of Configure's as an agent does.
func TestAgentsAnswersAreTakenApart(t *testing.T) {
	pc, ln := listenAnywhere(t)
	if got, want := pc.LocalAddr().String(), ln.Addr().String(); got != want {
		t.Errorf("%s by UDP, %s by TCP", got, want)
	}
	stub, err := stubFiles(pc, ln)
	if err != nil {
		t.Fatal(err)
	}
	udp, tcp, plain := stub[0].file, stub[1].file, newFile(t, "plain")
	defer closeAll([]*os.File{udp, tcp})
	if stub[0].name != fileDNSPacket || stub[1].name != fileDNSListener {
		t.Errorf("the stub's files: %+v", stub)
	}
	for _, c := range []struct {
		name   string
		answer any // nil: none
		files  []*os.File
		says   string
	}{
		{"all", answer{Files: []string{fileDNSPacket, "eth0", fileListener, filePacket, fileDNSListener, fileDNSRules,
			fileSockDiag, filePacket}}, []*os.File{udp, plain, tcp, udp, tcp, plain, plain, udp}, ""},
		{"nothing", answer{}, nil, ""},
		{"an error", answer{Error: "no TAP"}, nil, "no TAP"},
		{"fewer files than names", answer{Files: []string{"eth0", "eth1"}}, []*os.File{plain}, "makes no sense"},
		{"more files than names", answer{}, []*os.File{plain}, "makes no sense"},
		{"a file that is no socket", answer{Files: []string{fileDNSPacket}}, []*os.File{plain}, "socket"},
		{"nonsense", 5, nil, "makes no sense"},
		{"no answer", nil, nil, errNoAnswer.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			ours, theirs := connPair(t)
			go func() {
				var r Request
				_, err := receive(theirs, &r)
				if err == nil && c.answer != nil {
					var fds []int
					for _, f := range c.files {
						fds = append(fds, int(f.Fd()))
					}
					_ = send(theirs, c.answer, fds)
				}
				_ = theirs.Close()
			}()
			reply, err := converse(ours, Request{Remove: []string{"eth0"}})
			defer reply.close()
			if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v, want %q", err, c.says)
			}
			if c.name != "all" {
				return
			}
			if len(reply.TAPs) != 1 || reply.TAPs["eth0"] == nil || reply.DNSPacket == nil || reply.DNSListener ==
				nil ||
				reply.DNSRules == nil || reply.SockDiag == nil || len(reply.Listeners) != 1 || len(reply.Packets) != 2 {
				t.Errorf("%+v", reply)
			}
			reply.close()
			if _, err := reply.Listeners[0].Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed, it accepts: %v", err)
			}
		})
	}
}

func TestSocketsThatASandboxCannotHaveAreLeftOut(t *testing.T) {
	for _, err := range []error{unix.EADDRINUSE, unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT} {
		if !cannotHave(&net.OpError{Op: "listen", Err: os.NewSyscallError("bind", err)}) {
			t.Errorf("%v is an error", err)
		}
	}
	if cannotHave(nil) || cannotHave(unix.EACCES) {
		t.Error("nothing, or another error, is left out")
	}
	pc, ln := listenAnywhere(t)
	defer pc.Close()
	defer ln.Close()
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	if f, err := listenTCP(at); f != nil || err != nil {
		t.Errorf("TCP at a port that is in use: %v, %v", f, err)
	}
	if f, err := listenUDP(at); f != nil || err != nil {
		t.Errorf("UDP at a port that is in use: %v, %v", f, err)
	}
	tcp, err1 := listenTCP(loopbackPort)
	udp, err2 := listenUDP(loopbackPort)
	if err := errors.Join(err1, err2); err != nil || tcp == nil || udp == nil {
		t.Errorf("at a free port: %v, %v, %v", tcp, udp, err)
	}
	closeAll([]*os.File{tcp, udp})
}
