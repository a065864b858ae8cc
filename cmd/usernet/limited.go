package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/daemon"
	"github.com/usernet/usernet/internal/cgroup"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/sandbox"
)

// A container with limits is run by a monitor that the daemon's starter has started, also the first time: only from the
// cgroup that was delegated to the daemon can a process be started in the container's (package cgroup). Where `usernet
// run` stays in the foreground it hands its streams to the monitor, passes signals on, and gets the exit status.
// Streams and the job's Secret go by a socket beside the job's file: a daemon that was taken over cannot write there,
// so that it cannot put a socket of its own in that place, nor read the secret that it would need to get a terminal of
// the user's.

// attendedMessage goes between `usernet run` and the monitor.
type attendedMessage struct {
	Secret string `json:",omitempty"` // of the job: the first message, from the monitor
	Stdin  bool   `json:",omitempty"` // the answer: with it come Stdin, where it is set, standard output and error
	Signal int    `json:",omitempty"` // for the container's command
	Ended  bool   `json:",omitempty"` // with Code
	Code   int    `json:",omitempty"`
}

// newSecret makes a job's secret.
func newSecret() string { return rand.Text() }

// knows says whether a secret is the job's, in the same time whatever it is.
func (j *job) knows(secret string) bool {
	return j.Secret != "" && subtle.ConstantTimeCompare([]byte(secret), []byte(j.Secret)) == 1
}

// receiveAttended reads one message. No descriptors come with those that it is for.
func receiveAttended(conn *net.UnixConn) (m attendedMessage, err error) {
	fds, err := sandbox.ReceiveMessage(conn, &m)
	sockio.Close(fds)
	return m, err
}

// Sockets of a container beside its job's file.
const (
	attendSocket = ".attend" // where `usernet run` waits for the monitor
	execSocket   = ".exec"   // where the monitor waits for `usernet exec`
)

// jobSocket is the path of a socket of the container's in the directory of jobs, which is open until close. It has room
// for a long path of that directory in the 108 bytes of unix(7).
func jobSocket(stateDir, id, suffix string) (path string, close func(), err error) {
	if !idForm().MatchString(id) {
		return "", nil, fmt.Errorf("%.64q is no container's id", id)
	}
	name := daemon.JobsDir(stateDir)
	if !private(name) {
		return "", nil, fmt.Errorf("%s is not private to this user", name)
	}
	dir, err := os.OpenFile(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s%s", dir.Fd(), id, suffix), func() { _ = dir.Close() }, nil
}

// runLimited has the daemon start the container.
func (j *job) runLimited(ctx context.Context, c *api.Client, detach, stdin bool) error {
	if detach {
		if err := j.startFirst(ctx, c); err != nil {
			return err
		}
		fmt.Println(j.Container.ID)
		return nil
	}
	a, err := j.attend(stdin, attendPatience)
	if err != nil {
		j.forget(c)
		return runError{err}
	}
	defer a.close()
	if err := j.startFirst(ctx, c); err != nil {
		return err
	}
	code, err := a.wait(ctx)
	if err != nil {
		return runError{err}
	}
	if code != 0 {
		return exitCode(code)
	}
	return nil
}

// startFirst starts the container for the first time. One that cannot be started is forgotten. The API's answer has no
// exit status: as in Docker's client, it follows from the text.
func (j *job) startFirst(ctx context.Context, c *api.Client) error {
	err := c.ContainerStartAgain(ctx, j.Container.ID)
	if err == nil {
		return nil
	}
	j.forget(c)
	switch text := err.Error(); {
	case !strings.HasPrefix(text, "exec: "):
		return runError{err}
	case strings.Contains(text, "no such file") || strings.Contains(text, "not found"):
		return &sandbox.ExitError{Code: 127, Msg: text}
	default:
		return &sandbox.ExitError{Code: 126, Msg: text}
	}
}

// attendPatience is how long a process may take to say that it is the monitor, and the monitor of a container that has
// started to come.
const attendPatience = 10 * time.Second

// attending is `usernet run` in the foreground of a container that a monitor runs.
type attending struct {
	patience time.Duration
	job      *job
	listener *net.UnixListener
	stdin    bool
	restore  *term.State // of standard input; nil: it is no terminal
	monitor  chan *net.UnixConn
}

// attend waits for the container's monitor in the background.
func (j *job) attend(stdin bool, patience time.Duration) (*attending, error) {
	path, done, err := jobSocket(j.StateDir, j.Container.ID, attendSocket)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("socket for the container's monitor: %w", err)
	}
	l.SetUnlinkOnClose(false) // its path is the directory's descriptor
	a := &attending{
		patience: patience,
		job:      j,
		listener: l,
		stdin:    stdin,
		monitor:  make(chan *net.UnixConn, 1),
	}
	if fd := int(os.Stdin.Fd()); stdin && term.IsTerminal(fd) {
		a.restore, _ = term.GetState(fd)
	}
	go a.accept()
	return a, nil
}

// accept hands the streams to the first that knows the secret.
func (a *attending) accept() {
	defer close(a.monitor)
	for {
		conn, err := a.listener.AcceptUnix()
		if err != nil {
			return
		}
		_ = conn.SetReadDeadline(time.Now().Add(a.patience)) // a connection of the kernel's takes it
		if m, err := receiveAttended(conn); err != nil || !a.job.knows(m.Secret) {
			_ = conn.Close()
			continue
		}
		_ = conn.SetReadDeadline(time.Time{})
		fds := []int{unix.Stdout, unix.Stderr}
		if a.stdin {
			fds = append([]int{unix.Stdin}, fds...)
		}
		if err := sandbox.SendMessage(conn, attendedMessage{Stdin: a.stdin}, fds); err != nil {
			_ = conn.Close()
			continue
		}
		a.monitor <- conn
		return
	}
}

// close ends the waiting, and gives the terminal back as it was.
func (a *attending) close() {
	_ = a.listener.Close()
	_ = os.Remove(filepath.Join(daemon.JobsDir(a.job.StateDir), a.job.Container.ID+attendSocket))
	if a.restore != nil {
		_ = term.Restore(int(os.Stdin.Fd()), a.restore)
	}
}

// wait passes signals to the container's command, and returns its exit status. The container has been started.
func (a *attending) wait(ctx context.Context) (int, error) {
	var conn *net.UnixConn
	select {
	case conn = <-a.monitor: // it came before the container's command ran
	case <-time.After(a.patience):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if conn == nil {
		return 0, fmt.Errorf("the container runs without this terminal, since its monitor has not come for the streams: see "+
			"`usernet logs %.12[1]s`, or `usernet stop %.12[1]s`", a.job.Container.ID)
	}
	defer conn.Close()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals)
	defer signal.Stop(signals)
	go func() {
		for s := range signals {
			if n, ok := s.(syscall.Signal); ok && sandbox.Forwarded(n) {
				_ = sandbox.SendMessage(conn, attendedMessage{Signal: int(n)}, nil) // its end is noticed below
			}
		}
	}()
	m, err := receiveAttended(conn)
	switch {
	case err != nil:
		return 0, fmt.Errorf("the container's monitor ended: %w", err)
	case !m.Ended:
		return 0, errors.New("the container's monitor has not said how the container ended")
	}
	return m.Code, nil
}

// attendant is the other end of attending: nil where nobody attends.
type attendant struct {
	conn  *net.UnixConn
	files []*os.File // standard input where there is one, output and error
}

// meetAttendant gets the streams of the `usernet run` that waits for this run of the container, if one does.
func (j *job) meetAttendant() *attendant {
	if j.Secret == "" {
		return nil
	}
	path, done, err := jobSocket(j.StateDir, j.Container.ID, attendSocket)
	if err != nil {
		return nil
	}
	defer done()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil
	}
	var m attendedMessage
	err = sandbox.SendMessage(conn, attendedMessage{Secret: j.Secret}, nil)
	var fds []int
	if err == nil {
		fds, err = sandbox.ReceiveMessage(conn, &m)
	}
	a := &attendant{conn: conn}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		a.files = append(a.files, os.NewFile(uintptr(fd), "attendant"))
	}
	want := 2
	if m.Stdin {
		want++
	}
	if err != nil || len(a.files) != want {
		a.close()
		return nil
	}
	return a
}

// stdin is the attendant's; nil: there is none.
func (a *attendant) stdin() *os.File {
	if a == nil || len(a.files) < 3 {
		return nil
	}
	return a.files[0]
}

// outputs are its standard output and error; nil: it has none.
func (a *attendant) outputs() (stdout, stderr *os.File) {
	if a == nil {
		return nil, nil
	}
	return a.files[len(a.files)-2], a.files[len(a.files)-1]
}

// follow passes its signals on to this process, which passes them to the container's command. Once the attendant is
// gone this process ends, and the container with it, as with a `usernet run` that runs the container itself.
func (a *attendant) follow() {
	if a == nil {
		return
	}
	go func() {
		for {
			m, err := receiveAttended(a.conn)
			if err != nil {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				return
			}
			if s := syscall.Signal(m.Signal); sandbox.Forwarded(s) {
				_ = syscall.Kill(os.Getpid(), s)
			}
		}
	}()
}

// ended tells the exit status. Call it last: the process may be killed once the attendant knows.
func (a *attendant) ended(code int) {
	if a != nil {
		_ = sandbox.SendMessage(a.conn, attendedMessage{Ended: true, Code: code}, nil) // or it is gone
	}
}

func (a *attendant) close() {
	_ = a.conn.Close()
	for _, f := range a.files {
		_ = f.Close()
	}
}

// enterCgroup has the container run in the cgroup that the daemon has made for it, and see no other.
func (j *job) enterCgroup(ctx context.Context, c *api.Client) error {
	k, err := c.Container(ctx, j.Container.ID)
	if err != nil {
		return err
	}
	j.Container.Resources = k.Resources
	if k.Cgroup == "" {
		if k.Resources.IsZero() {
			return nil
		}
		return errors.New("the daemon has made no cgroup for the container's limits")
	}
	j.Sandbox.Cgroup = cgroup.InsideOf(k.Cgroup)
	j.Sandbox.Hidden = append(j.Sandbox.Hidden, "/sys/fs/cgroup")
	return nil
}
