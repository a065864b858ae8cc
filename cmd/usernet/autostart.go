package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
)

// startWait is how long a daemon that was just started may take to answer.
const startWait = 10 * time.Second

// exitInUse is serve's exit status where another daemon has the state or the socket: EX_TEMPFAIL of sysexits.h.
const exitInUse = 75

// maxDaemonLog is the size in bytes at which the background daemon's log is turned over when a daemon starts. One
// older file is kept, so that a panic can still be read after the next start.
const maxDaemonLog = 1 << 20

// minState is the room that a new state needs, in bytes: bbolt's first pages and a copy of them.
const minState = 64 << 10

// startedClient is client, with a daemon behind it: where none answers on the default socket, one is started.
func startedClient(ctx context.Context) (*api.Client, error) {
	c, err := client()
	if err != nil {
		return nil, err
	}
	err = c.Ping(ctx)
	if err == nil || host != "" || !errors.Is(err, api.ErrNoDaemon) {
		return c, err
	}
	state, err := stateDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf(
			"no directory for the state: %w. Set XDG_STATE_HOME to a directory that is private to this user",
			err,
		)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(state, &fs); err == nil && int64(fs.Bavail)*fs.Bsize < minState {
		return nil, fmt.Errorf(
			"no daemon can be started: there is no room in %s. In a container of usernet's the caller's own state is hidden: "+
				"set XDG_STATE_HOME and XDG_RUNTIME_DIR to directories of the container's own",
			state,
		)
	}
	log, begin, err := openDaemonLog(state)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd, err := backgroundDaemon(log)
	if err != nil {
		return nil, err
	}
	warnDaemonVariables(os.Stderr) // who looks into the new daemon's log?
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a daemon: %w", err)
	}
	ended := make(chan int, 1)
	go func() { _ = cmd.Wait(); ended <- cmd.ProcessState.ExitCode() }()
	return awaitDaemon(ctx, ended, func() string {
		text, _ := io.ReadAll(io.NewSectionReader(log, begin, maxDaemonLog)) // "" says as much
		return fmt.Sprintf("%s\n(its whole log is %s)", bytes.TrimSpace(text), log.Name())
	})
}

// awaitDaemon returns a client of the daemon that answers first: the one that was started or, where that ends since
// another has the state, the other. A daemon that ends for another reason is told at once.
func awaitDaemon(ctx context.Context, ended <-chan int, said func() string) (*api.Client, error) {
	deadline := time.After(startWait)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for over := false; ; {
		c, err := client() // follows the state to another daemon's socket
		if err != nil {
			return nil, err
		}
		if c.Ping(ctx) == nil {
			return c, nil
		}
		if over {
			return nil, didNotStart(said())
		}
		select {
		case code := <-ended:
			over = code != exitInUse
		case <-deadline:
			over = true
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// daemonLog is the file in the state directory that a daemon writes its log to which a command has started.
const daemonLog = "daemon.log"

// openDaemonLog opens the background daemon's log for appending, and says where this daemon's part of it begins.
func openDaemonLog(state string) (log *os.File, begin int64, err error) {
	path := filepath.Join(state, daemonLog)
	if info, err := os.Stat(path); err == nil && info.Size() > maxDaemonLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, 0, err
		}
	}
	if log, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR|syscall.O_NOFOLLOW, 0o600); err != nil {
		return nil, 0, err
	}
	if begin, err = log.Seek(0, io.SeekEnd); err != nil {
		return nil, 0, errors.Join(err, log.Close())
	}
	return log, begin, nil
}

// backgroundDaemon is the daemon that outlives the command which starts it.
func backgroundDaemon(log *os.File) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "serve", "--exit-when-idle", "5m")
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// socketFile is the file in the state directory that names the socket of the daemon which has the state.
const socketFile = "socket"

// noteSocket writes down where the daemon listens, for commands with another XDG_RUNTIME_DIR.
func noteSocket(state, socket string) error {
	path := filepath.Join(state, socketFile)
	if err := writeInState(path+".new", []byte(socket+"\n")); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// socketOf is the socket at which a daemon is to be looked for: the default one, or the one that the state names
// where nothing listens at the default one. There is one daemon for a state, whatever the environment of its
// commands.
func socketOf(defaultSocket string) string {
	if listens(defaultSocket) {
		return defaultSocket
	}
	state, err := stateDir()
	if err != nil {
		return defaultSocket
	}
	text, err := os.ReadFile(filepath.Join(state, socketFile))
	if other := strings.TrimSuffix(string(text), "\n"); err == nil && filepath.IsAbs(other) && listens(other) {
		return other
	}
	return defaultSocket
}

// listens says whether something accepts connections at a unix socket.
func listens(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// didNotStart is an error with what a daemon said before it ended. The topic that it named is this error's.
func didNotStart(said string) error {
	var lines []string
	topic := errdefs.TopicNoDaemon
	for line := range strings.Lines(said) {
		if name, is := strings.CutPrefix(strings.TrimSpace(line), seeTopic); is {
			if slices.Contains(errdefs.Topics, errdefs.Topic(name)) {
				topic = errdefs.Topic(name)
			}
			continue
		}
		lines = append(lines, line)
	}
	return errdefs.About(topic, fmt.Errorf("the daemon did not start:\n%s", strings.Join(lines, "")))
}
