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
	"time"

	"golang.org/x/sys/unix"
)

// backgroundVariable tells the process in the background the descriptor by which it says that it is ready.
const backgroundVariable = "USERNET_PASTA_READY"

// readyFD is that descriptor: the first behind the standard streams.
const readyFD = 3

// Main is the program: it returns the exit status, pasta's for each case.
func Main(program, version string, args []string, stdout, stderr io.Writer) int {
	o, err := Parse(args)
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
	if err := o.supported(); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", program, err)
		return 1
	}
	switch {
	case os.Getenv(backgroundVariable) != "":
		err = background(o)
	case o.Foreground:
		err = foreground(o, logger(o, stderr), func() error { return nil })
	default:
		err = spawn()
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// supported refuses what is not done, by name.
func (o *Options) supported() error {
	switch {
	case o.PID == 0 && o.NetNS == "":
		return errors.New("a namespace is joined by --netns or a PID; to start a command in one, use `usernet run`")
	case o.TCPNS.Mode == ModeList || o.TCPNS.Mode == ModeAll || o.UDPNS.Mode == ModeList || o.UDPNS.Mode == ModeAll:
		return errors.New("--tcp-ns and --udp-ns: ports of the namespace's loopback do not lead to the host's yet; use the address of --map-host-loopback")
	case o.PCAP != "":
		return errors.New("--pcap is not done yet; capture in the namespace with tcpdump")
	case o.RunAs != "":
		return errors.New("--runas: start it as that user")
	case o.FreeBind:
		return errors.New("--freebind is not done")
	case o.NoTCP || o.NoUDP || o.NoICMP || o.NoNDP:
		return errors.New("--no-tcp, --no-udp, --no-icmp and --no-ndp are not done; a packet filter in the namespace does it")
	case o.Hostname != "" || o.FQDN != "":
		return errors.New("--hostname and --fqdn are not told by DHCP")
	case o.OutboundIf[v6] != "" && o.OutboundIf[v6] != o.OutboundIf[v4]:
		return errors.New("--outbound-if6 has to be the interface of --outbound-if4: one is for both families")
	}
	return nil
}

// logger writes to the log file, or to standard error where somebody sees it.
func logger(o *Options, stderr io.Writer) *slog.Logger {
	level := slog.LevelInfo
	switch {
	case o.Debug:
		level = slog.LevelDebug
	case o.Quiet:
		level = slog.LevelWarn
	}
	w := stderr
	if o.LogFile != "" {
		if f, err := os.OpenFile(o.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err == nil {
			w = f // it stays open until the end
		}
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// spawn starts the same program in the background, in the same process group, and returns when it is ready or has failed.
func spawn() error {
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
	err := foreground(o, logger(o, io.Discard), func() error {
		_, err := ready.WriteString("ok")
		return errors.Join(err, ready.Close())
	})
	if err != nil {
		_, _ = ready.WriteString(err.Error()) // of no effect once all was well
	}
	return err
}

// foreground connects the namespace, says so, and serves it until it is gone or the process is asked to end.
func foreground(o *Options, log *slog.Logger, ready func() error) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	gone, err := o.watch(ctx)
	if err != nil {
		return err
	}
	s, err := start(ctx, o, log)
	if err != nil {
		return err
	}
	if err := errors.Join(o.writePID(), ready()); err != nil {
		return errors.Join(err, s.close())
	}
	select {
	case <-ctx.Done():
	case <-s.net.Gone():
	case <-gone:
	}
	return s.close()
}

// watchEvery is how often the namespace's path is looked at.
const watchEvery = 500 * time.Millisecond

// watch returns what is closed when the namespace's process has ended or its path leads elsewhere. The interface's
// descriptor holds the namespace itself, so that nothing else tells of its end.
func (o *Options) watch(ctx context.Context) (<-chan struct{}, error) {
	gone := make(chan struct{})
	if o.QuitNever {
		return gone, nil
	}
	path := o.target().NetNS
	if path == "" {
		path = fmt.Sprintf("/proc/%d/ns/net", o.PID)
	}
	var first unix.Stat_t
	if err := unix.Stat(path, &first); err != nil {
		return nil, fmt.Errorf("couldn't open network namespace %s: %w", path, err)
	}
	go func() { // until ctx ends, or the namespace
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			var now unix.Stat_t
			if err := unix.Stat(path, &now); err != nil || now.Ino != first.Ino || now.Dev != first.Dev {
				close(gone)
				return
			}
		}
	}()
	return gone, nil
}
