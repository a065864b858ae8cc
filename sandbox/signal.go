package sandbox

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Signal passes a signal to the command, once it runs.
func (p *Process) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("unknown signal %v", sig)
	}
	p.signals.Lock()
	defer p.signals.Unlock()
	select {
	case <-p.done:
		return os.ErrProcessDone // its pid may be another process's
	default:
	}
	if !p.signals.running && s != syscall.SIGKILL {
		if len(p.signals.early) < maxEarlySignals {
			p.signals.early = append(p.signals.early, s)
		}
		return nil
	}
	return syscall.Kill(p.pid, s)
}

// maxEarlySignals bounds the signals that wait for the command.
const maxEarlySignals = 64

// Kill ends the sandbox with all processes in it, and waits for that.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.done
	_ = p.control.Close()
	p.closeMounts()
	p.etc.close()
	p.term.close()
}

// Wait returns the command's exit status, 128 and the signal's number where a signal ended it, once all its
// output has been passed on.
func (p *Process) Wait() (int, error) {
	<-p.done
	p.closing.Wait()
	p.etc.close()
	p.term.drain()
	if p.status.Signaled() {
		return 128 + int(p.status.Signal()), nil
	}
	return p.status.ExitStatus(), nil
}

// Forwarded says whether a signal to a process that runs a sandbox is meant for the sandbox's command: not those of the
// Go runtime, of broken pipes, of the shell's job control, and no others than there are.
func Forwarded(s syscall.Signal) bool {
	switch s {
	case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE, unix.SIGTTIN, unix.SIGTTOU:
		return false
	}
	return s > 0 && s <= maxSignal
}

// maxSignal is the last real-time signal (signal(7)).
const maxSignal = 64

// ForwardSignals passes this process's signals on until the returned function is called.
func (p *Process) ForwardSignals() (stop func()) {
	ch := make(chan os.Signal, 16)
	signal.Notify(ch)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-ch:
				if n, ok := s.(syscall.Signal); !ok || !Forwarded(n) {
					continue
				}
				if s == unix.SIGWINCH {
					p.term.resize()
				} else {
					_ = p.Signal(s)
				}
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(ch); close(done) }
}
