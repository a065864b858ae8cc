package sandbox

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// newPty is a terminal.
func newPty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close(); _ = slave.Close() })
	return master, slave
}

func TestStreamsAreTheCallersOrATerminals(t *testing.T) {
	file := newFile(t, "stream")
	for _, c := range []struct {
		name     string
		spec     Spec
		terminal bool // there is one
		attached bool // already
		given    bool // the role has the caller's streams
	}{
		{"none", Spec{}, false, false, false},
		{"the caller's", Spec{Stdin: file, Stdout: file, Stderr: file}, false, false, true},
		{"a terminal", Spec{TTY: true, Stdin: file, Stdout: file}, true, true, false},
		{"a terminal that is made inside", Spec{TTY: true, Rootfs: "/r", Stdin: file, Stdout: file}, true, false,
			false},
	} {
		p := &Process{spec: c.spec, cmd: new(exec.Cmd)}
		if err := p.connectStreams(); err != nil {
			t.Fatal(err)
		}
		if (p.term != nil) != c.terminal || c.terminal && p.term.attached() != c.attached {
			t.Errorf("%s: terminal %+v", c.name, p.term)
		}
		given := p.cmd.Stdin == io.Reader(file) && p.cmd.Stdout == io.Writer(file) && p.cmd.Stderr == io.Writer(file)
		none := p.cmd.Stdin == nil && p.cmd.Stdout == nil && p.cmd.Stderr == nil
		if given != c.given || none == (c.given || c.attached) {
			t.Errorf("%s: %v, %v, %v", c.name, p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr)
		}
		p.term.close()
	}
}

// TestTerminalHasTheSizeOfTheCallers: that of its output, or where that is none of its input.
func TestTerminalHasTheSizeOfTheCallers(t *testing.T) {
	file := newFile(t, "log")
	_, big := newPty(t)
	_, small := newPty(t)
	for f, size := range map[*os.File]*pty.Winsize{big: {Rows: 50, Cols: 200}, small: {Rows: 5, Cols: 20}} {
		if err := pty.Setsize(f, size); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name       string
		in, out    *os.File
		rows, cols int
	}{
		{"both are terminals", small, big, 50, 200},
		{"output to a file", small, file, 5, 20},
		{"output to a file, no input", nil, file, 0, 0},
		{"output to a file, input from one", file, file, 0, 0},
		{"nowhere", small, nil, 0, 0},
	} {
		master, slave := newPty(t)
		newTerminal(master, slave, c.in, c.out).resize()
		if rows, cols, err := pty.Getsize(slave); err != nil || rows != c.rows || cols != c.cols {
			t.Errorf("%s: %d rows, %d columns, %v; want %d, %d", c.name, rows, cols, err, c.rows, c.cols)
		}
	}
}

// TestTerminalPassesOnAllOutput has a program write to a terminal that is attached late, as one made inside.
func TestTerminalPassesOnAllOutput(t *testing.T) {
	out := newFile(t, "output")
	term := newTerminal(nil, nil, nil, out)
	term.drain() // there is nothing yet: it does not wait
	master, slave := newPty(t)
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done")
	cmd.Stdout = slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	term.attach(master)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	term.drain()
	term.drain()
	text, err := os.ReadFile(out.Name())
	if err != nil || bytes.Count(text, []byte("\n")) != 2000 || !bytes.HasSuffix(text, []byte("line 1999\r\n")) {
		t.Errorf("%d lines, %v", bytes.Count(text, []byte("\n")), err)
	}
	if _, err := master.Write([]byte("x")); err == nil {
		t.Error("it is open after the end")
	}
}

func TestTerminalSendsTheEndOfItsInput(t *testing.T) {
	in := newFile(t, "input")
	if _, err := in.WriteAt([]byte("one line\n"), 0); err != nil {
		t.Fatal(err)
	}
	out := newFile(t, "output")
	master, slave := newPty(t)
	cmd := exec.Command("cat") // until Ctrl-D
	cmd.Stdin, cmd.Stdout = slave, slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term := newTerminal(master, slave, in, out)
	term.started()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	term.drain()
	if text, err := os.ReadFile(out.Name()); err != nil || !strings.Contains(string(text), "one line\r\n") {
		t.Errorf("%q, %v", text, err)
	}
}

func TestNoTerminalDoesNothing(t *testing.T) {
	var none *terminal
	none.started()
	none.resize()
	none.drain()
	none.close()
	if nilFile(nil) != nil || nilFileW(nil) != nil {
		t.Error("no file is a stream")
	}
}

// TestInputIsLeftAloneOnceATerminalIsClosed: the process that copied it lives on, where it has started another command
// in its container, and must not take what is typed for the shell that comes after.
func TestInputIsLeftAloneOnceATerminalIsClosed(t *testing.T) {
	keyboard, callers := newPty(t)
	master, inside := newPty(t)
	term := newTerminal(master, nil, callers, callers)
	term.started()
	for _, reader := range []struct {
		f    *os.File
		line string
	}{{inside, "for the command"}, {callers, "for the shell"}} {
		if _, err := keyboard.WriteString(reader.line + "\r"); err != nil {
			t.Fatal(err)
		}
		got := make(chan string, 1)
		go func() {
			b := make([]byte, 100)
			n, _ := reader.f.Read(b)
			got <- string(b[:n])
		}()
		select {
		case line := <-got:
			if line != reader.line+"\n" {
				t.Errorf("%q was read, not %q", line, reader.line)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%q was read by somebody else", reader.line)
		}
		term.close()
	}
}
