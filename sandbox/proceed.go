package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"syscall"
)

// SetUp has the init set up a sandbox for which Proceed will have all texts of Files, under a host name, and returns
// when the sandbox only waits for these. It may be called while others enter the sandbox and configure its network.
// Without it, Proceed does the same. What is for the inside of the sandbox only, such as the environment, counts as it
// is in spec, and all else as it was for Start.
func (p *Process) SetUp(spec Spec, hostname string) error {
	return p.prepare(startRequest{spec, hostname, etcNames[:]})
}

// Proceed lets the init go on with files, and returns when the command runs, or an *ExitError.
func (p *Process) Proceed(files Files) error {
	if !p.prepared {
		if err := p.prepare(startRequest{p.spec, files.Hostname, files.names()}); err != nil {
			return err
		}
	}
	if err := p.WriteFiles(files); err != nil {
		return &ExitError{125, err.Error()}
	}
	_ = p.request(startSignal{}) // where the init is gone, it may have said why
	r, received, err := p.receive()
	closeAll(received)
	if err != nil {
		return endedEarly(err)
	}
	_ = p.control.Close()
	p.closing.Go(p.closeMounts)
	if r.Error != "" {
		return &ExitError{r.Code, r.Error}
	}
	p.runs()
	return nil
}

// prepare has the init carry out q as far as it can before the command, and takes what comes out of the sandbox.
func (p *Process) prepare(q startRequest) error {
	if err := p.request(q); err != nil {
		return err
	}
	r, received, err := p.receive()
	switch {
	case err != nil:
		return endedEarly(err)
	case r.Error != "":
		closeAll(received)
		return &ExitError{r.Code, r.Error}
	case r.Mounts && len(received) > 0:
		p.etc.Lock()
		p.mounts, received = received[0], received[1:]
		p.etc.Unlock()
	}
	if err := p.takeFiles(q.Etc, received); err != nil {
		return &ExitError{125, err.Error()}
	}
	p.prepared = true
	_ = p.request(q) // it waits in the socket for the init's second program; where that never comes, Proceed says why
	return nil
}

func endedEarly(err error) error {
	return fmt.Errorf("the sandbox's init ended before the command ran: %w", err)
}

// closeMounts closes the mount namespace that the init has left.
func (p *Process) closeMounts() {
	p.etc.Lock()
	mounts := p.mounts
	p.mounts = nil
	p.etc.Unlock()
	if mounts != nil {
		_ = mounts.Close()
	}
}

// takeFiles takes what the init has handed out: the files of /etc by these names, and a terminal where one was made
// inside.
func (p *Process) takeFiles(names []string, files []*os.File) error {
	want := len(names)
	if p.spec.terminalInside() {
		want++
	}
	if len(files) != want {
		closeAll(files)
		return fmt.Errorf("%d files came from the sandbox's init, not %d", len(files), want)
	}
	p.etc.Lock()
	for i, name := range names {
		p.etc.files[name] = files[i]
	}
	p.etc.Unlock()
	if p.spec.terminalInside() {
		p.term.attach(files[want-1])
	}
	return nil
}

// request sends the role what it is to do.
func (p *Process) request(q any) error {
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return &ExitError{
			125,
			fmt.Sprintf("command and environment have %d bytes; %d are possible", len(b), maxMessage),
		}
	}
	if _, err := p.control.Write(b); err != nil {
		return fmt.Errorf("the sandbox's init is gone: %w", err)
	}
	return nil
}

// receive reads a reply and the files that come with it, which are the caller's.
func (p *Process) receive() (r startReply, files []*os.File, err error) {
	buf := make([]byte, maxMessage)
	n, files, err := readFiles(p.control, buf)
	if err != nil {
		return r, nil, err
	}
	if n == 0 {
		return r, nil, io.EOF
	}
	if err := json.Unmarshal(buf[:n], &r); err != nil {
		closeAll(files)
		return r, nil, err
	}
	return r, files, nil
}

// runs says that the command runs, and sends it the signals that came before.
func (p *Process) runs() {
	p.signals.Lock()
	defer p.signals.Unlock()
	p.signals.running = true
	for _, s := range p.signals.early {
		_ = syscall.Kill(p.pid, s)
	}
	p.signals.early = nil
}
