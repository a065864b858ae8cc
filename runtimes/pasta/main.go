package pasta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
)

// backgroundVariable tells the process in the background the descriptor by which it says that it is ready.
const backgroundVariable = "USERNET_PASTA_READY"

// readyFD is that descriptor: the first behind the standard streams.
const readyFD = 3

// Main is the program: it returns the exit status, pasta's for each case. daemon finds the user's daemon, for those who
// join its networks.
func Main(program, version string, daemon func() (*api.Client, error), args []string, stdout, stderr io.Writer) int {
	o, err := Parse(args)
	if o != nil {
		o.daemon = daemon
	}
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v\n", program, err)
		return 1
	case o.Help:
		fmt.Fprint(stdout, Usage(program))
		return 0
	case o.Version:
		fmt.Fprintf(stdout, "pasta 2025_05_03.usernet (%s)\n", version)
		return 0
	}
	switch {
	case os.Getenv(commandVariable) != "":
		err = o.runCommand()
	case os.Getenv(backgroundVariable) != "":
		err = background(o)
	case o.RunAs != "" && !o.is(o.RunAs):
		err = o.again()
	case o.PID == 0 && o.NetNS == "":
		err = o.command(stderr)
	case o.Foreground:
		err = foreground(o, stderr, func() error { return nil })
	default:
		err = o.spawn()
	}
	if status := commandStatus(0); errors.As(err, &status) {
		return int(status)
	}
	if err != nil {
		fmt.Fprintln(stderr, sentence(err))
		return 1
	}
	return 0
}

// sentence is an error's text as pasta begins them.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// openLogger writes to the log file, or to standard error where somebody sees it. The caller closes what is returned.
func openLogger(o *Options, stderr io.Writer) (*slog.Logger, io.Closer, error) {
	level := slog.LevelInfo
	switch {
	case o.Debug:
		level = slog.LevelDebug
	case o.Quiet:
		level = slog.LevelWarn
	}
	var c io.Closer = io.NopCloser(nil)
	if o.LogFile != "" {
		f, err := openLog(o.LogFile, o.LogSize)
		if err != nil {
			return nil, nil, err
		}
		stderr, c = f, f.file
	}
	return slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})), c, nil
}

// spawn starts the same program in the background, in the same process group, and returns when it is ready or has
// failed.
func (o *Options) spawn() error {
	ready, readyEnd, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       os.Args,
		Env:        append(os.Environ(), backgroundVariable+"=1"),
		ExtraFiles: []*os.File{readyEnd},
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, readyEnd.Close())
	}
	_ = readyEnd.Close()
	text, err := io.ReadAll(ready)
	switch {
	case err != nil:
		return err
	case string(text) == "ok":
		return cmd.Process.Release()
	case len(text) > 0:
		return errors.New(strings.TrimSpace(string(text)))
	}
	return fmt.Errorf("the process in the background ended: %w", cmd.Wait())
}

// background runs in the process that spawn started. Its standard streams are /dev/null already.
func background(o *Options) error {
	ready := os.NewFile(readyFD, "ready")
	unix.CloseOnExec(readyFD)
	_ = os.Unsetenv(backgroundVariable)
	err := foreground(o, io.Discard, func() error {
		_, err := ready.WriteString("ok")
		return errors.Join(err, ready.Close())
	})
	if err != nil {
		_, _ = ready.WriteString(err.Error()) // of no effect once it said that it is ready
	}
	return err
}

// foreground connects the namespace, says so, and serves it until it is gone or the process is asked to end.
func foreground(o *Options, stderr io.Writer, ready func() error) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log, closer, err := openLogger(o, stderr)
	if err != nil {
		return err
	}
	defer closer.Close()
	gone, err := o.watch(ctx)
	if err != nil {
		return err
	}
	s, err := start(ctx, o, log)
	if err != nil {
		return err
	}
	err = o.writePID()
	if err == nil {
		err = ready()
	}
	if err != nil {
		return errors.Join(err, s.close())
	}
	select {
	case <-ctx.Done():
	case <-s.net.Gone():
	case <-gone:
	}
	return s.close()
}
