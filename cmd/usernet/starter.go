package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/daemon"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/sandbox"
)

// The starter is a process that starts containers again for a daemon. A daemon that has confined itself may start no
// programs, and what it says may be an attacker's: so the starter accepts ids of containers only, and runs what
// `usernet run` has written down under that id, where the daemon cannot write. It also opens macvtaps that were made
// after the daemon has confined itself (starter_macvtap.go). It ends with the daemon; what it has started goes on.

// starterMessage is a request, or the answer with the same number.
type starterMessage struct {
	N      uint64
	ID     string `json:",omitempty"` // of a container
	Forget bool   `json:",omitempty"` // remove what was written down of it; there is no answer
	// Macvtap is the name of one to open; its descriptor comes with the answer.
	Macvtap string `json:",omitempty"`
	Code    int    `json:",omitempty"` // exit status that goes with Error
	Error   string `json:",omitempty"`
}

// maxStarterMessage bounds a message, in bytes.
const maxStarterMessage = 16 << 10

// starterWord is the command that is the starter.
const starterWord = "starter"

// starterFD is the starter's end of the socket.
const starterFD = 3

// starter is the daemon's end. Its methods may be called at the same time.
type starter struct {
	conn *net.UnixConn
	cmd  *exec.Cmd
	read chan struct{} // closed when no more answers come

	mu      sync.Mutex
	n       uint64
	waiting map[uint64]chan starterAnswer
}

// starterAnswer is an answer, and the descriptor that came with it, which is the receiver's; nil: none did.
type starterAnswer struct {
	starterMessage
	file *os.File
}

func (a starterAnswer) close() {
	if a.file != nil {
		_ = a.file.Close()
	}
}

var _ daemon.Starter = (*starter)(nil)

// startStarter starts one. Call it before the process confines itself.
func startStarter(socket, stateDir string) (*starter, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "starter")
	defer theirs.Close()
	conn, err := fileConn(fds[0])
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", starterWord, socket, stateDir)
	cmd.Args[0], cmd.Dir, cmd.Stderr, cmd.ExtraFiles = "usernet", "/", os.Stderr, []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // signals from a terminal are for the daemon
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the process that starts containers: %w", err), conn.Close())
	}
	s := &starter{conn: conn, cmd: cmd, read: make(chan struct{}), waiting: map[uint64]chan starterAnswer{}}
	go s.readAnswers()
	return s, nil
}

// fileConn makes a connection of a socket's descriptor, which it takes over.
func fileConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "starter")
	defer f.Close() // FileConn duplicates it
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("the starter's socket is no Unix socket"), c.Close())
	}
	return u, nil
}

// Close ends the starter and waits for it.
func (s *starter) Close() error {
	err := s.conn.Close()
	<-s.read
	_ = s.cmd.Wait() // its status says nothing that the daemon does not know
	return err
}

func (s *starter) readAnswers() {
	defer close(s.read)
	buf := make([]byte, maxStarterMessage)
	for {
		r, err := sockio.ReadRights(s.conn, buf, 1)
		if err != nil || r.N == 0 {
			return
		}
		var a starterAnswer
		for _, fd := range r.FDs {
			_ = unix.SetNonblock(fd, true) // else its file would not be polled
			a.file = os.NewFile(uintptr(fd), "macvtap")
		}
		if json.Unmarshal(buf[:r.N], &a.starterMessage) != nil {
			a.close()
			continue
		}
		s.mu.Lock()
		c := s.waiting[a.N]
		delete(s.waiting, a.N)
		if c != nil {
			c <- a // it has room for one
		} else {
			a.close() // nobody waits for it any more
		}
		s.mu.Unlock()
	}
}

// Start implements daemon.Starter.
func (s *starter) Start(ctx context.Context, id string) error {
	a, err := s.ask(ctx, starterMessage{ID: id})
	if err != nil {
		return err
	}
	a.close()
	if a.Error != "" {
		return errdefs.Invalid("%w", &sandbox.ExitError{Code: a.Code, Msg: a.Error}) // as Docker: 400
	}
	return nil
}

// ask sends a request and waits for its answer.
func (s *starter) ask(ctx context.Context, m starterMessage) (starterAnswer, error) {
	answer := make(chan starterAnswer, 1)
	s.mu.Lock()
	s.n++
	m.N = s.n
	s.waiting[m.N] = answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, m.N)
		s.mu.Unlock()
		select {
		case a := <-answer: // it came too late
			a.close()
		default:
		}
	}()
	if err := s.send(m); err != nil {
		return starterAnswer{}, err
	}
	select {
	case a := <-answer:
		return a, nil
	case <-s.read:
		return starterAnswer{}, errdefs.Unavailable("the process that starts containers has ended: start the daemon again")
	case <-ctx.Done():
		return starterAnswer{}, ctx.Err()
	}
}

// Forget implements daemon.Starter.
func (s *starter) Forget(id string) { _ = s.send(starterMessage{ID: id, Forget: true}) } // else the next daemon does

func (s *starter) send(m starterMessage) error {
	b, err := json.Marshal(m)
	if err == nil {
		_, err = s.conn.Write(b)
	}
	if err != nil {
		return errdefs.Unavailable("the process that starts containers does not answer: %w", err)
	}
	return nil
}

func starterCommand() *cobra.Command {
	return &cobra.Command{
		Use:    starterWord + " SOCKET STATE",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			unix.CloseOnExec(starterFD)
			// As the daemon's other processes. It keeps the right to gain privileges, since newuidmap(1) needs it.
			if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
				return os.NewSyscallError("prctl", err)
			}
			c, err := fileConn(starterFD)
			if err != nil {
				return fmt.Errorf("starter without a socket: %w", err)
			}
			return serveStarts(c, args[0], args[1])
		},
	}
}

// serveStarts answers requests until the daemon is gone.
func serveStarts(c *net.UnixConn, socket, stateDir string) error {
	defer c.Close()
	buf := make([]byte, maxStarterMessage)
	for {
		n, err := c.Read(buf)
		if err != nil || n == 0 {
			return nil
		}
		var q starterMessage
		if json.Unmarshal(buf[:n], &q) != nil {
			continue
		}
		if q.Forget {
			if idForm().MatchString(q.ID) {
				for _, suffix := range []string{"", attendSocket, execSocket} { // or it was never made
					_ = os.Remove(filepath.Join(daemon.JobsDir(stateDir), q.ID+suffix))
				}
			}
			continue
		}
		if q.Macvtap != "" {
			go answerMacvtap(c, q)
			continue
		}
		go func() {
			r := starterMessage{N: q.N}
			if err := startJob(socket, stateDir, q.ID); err != nil {
				e := &sandbox.ExitError{Code: 125}
				if !errors.As(err, &e) {
					e = &sandbox.ExitError{Code: 125, Msg: err.Error()}
				}
				r.Code, r.Error = e.Code, e.Msg[:min(len(e.Msg), maxStarterMessage/8)] // JSON may make six bytes of one
			}
			if b, err := json.Marshal(r); err == nil {
				_, _ = c.Write(b) // the daemon may be gone
			}
		}()
	}
}

// startJob starts a monitor for a container, and returns once the container's command runs.
func startJob(socket, stateDir, id string) error {
	j, err := loadJob(stateDir, id)
	if err != nil {
		return err
	}
	j.Again, j.Socket, j.StateDir = true, socket, stateDir
	cmd, err := j.startMonitor(context.Background())
	if cmd != nil {
		go func() { _ = cmd.Wait() }() // so that it does not stay as a zombie
	}
	return err
}
