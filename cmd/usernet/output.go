package main

import (
	"bytes"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/joblog"
)

// outputChunk is how much is read of a stream at a time, in bytes: what a pipe holds (pipe(7)).
const outputChunk = 64 << 10

// maxLogLine is the length in bytes at which a line is written to the log in parts, as Docker's json-file does.
const maxLogLine = 16 << 10

// output is one of a container's output streams on its way to the log.
type output struct {
	name string   // stdout or stderr
	fd   int      // the end of the pipe that is read; -1 when it is closed
	tee  *os.File // where it is copied to at once; nil: nowhere
	part []byte   // a line that is not whole yet
}

// pipeOutput makes a pipe for an output stream. The container gets w; tee is as in output.
func pipeOutput(name string, tee *os.File) (o *output, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	return &output{name: name, fd: p[0], tee: tee}, os.NewFile(uintptr(p[1]), name), nil
}

// follow copies streams to the log until all of them have ended. It reads them in turns, in their order where several
// have something: two pipes do not tell which of them was written to first. A stream whose tee is gone is closed, so
// that the container sees what it would see without the log: EPIPE.
func (l *logFile) follow(streams ...*output) {
	// Without a handler a broken pipe on descriptor 1 or 2 ends this process (os/signal), and with it the container.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	chunk := make([]byte, outputChunk)
	for {
		var fds []unix.PollFd
		for _, o := range streams {
			if o.fd >= 0 {
				fds = append(fds, unix.PollFd{Fd: int32(o.fd), Events: unix.POLLIN})
			}
		}
		if len(fds) == 0 {
			return
		}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return // out of memory: the pipes are closed with this process
		}
		ready := map[int]bool{}
		for _, f := range fds {
			ready[int(f.Fd)] = f.Revents != 0
		}
		for _, o := range streams {
			if o.fd >= 0 && ready[o.fd] {
				o.copy(l, chunk)
			}
		}
	}
}

// copy moves what there is to read of o.
func (o *output) copy(l *logFile, chunk []byte) {
	n, err := unix.Read(o.fd, chunk)
	if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
		return
	}
	now := time.Now()
	if n > 0 {
		if o.tee != nil {
			if _, err := o.tee.Write(chunk[:n]); err != nil {
				n = 0 // nobody reads it: this is its end
			}
		}
	}
	if n > 0 {
		o.part = append(o.part, chunk[:n]...)
	}
	for {
		i := bytes.IndexByte(o.part, '\n') + 1
		if i == 0 && len(o.part) >= maxLogLine {
			i = maxLogLine
		}
		if i == 0 && n <= 0 {
			i = len(o.part)
		}
		if i == 0 {
			break
		}
		l.write(joblog.Line{Log: string(o.part[:i]), Stream: o.name, Time: now})
		o.part = o.part[i:]
	}
	if n <= 0 {
		_ = unix.Close(o.fd)
		o.fd = -1
	}
}
