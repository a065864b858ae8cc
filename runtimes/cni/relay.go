package cni

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/nsend"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/runtimes/rootlessport"
)

// RelayArgument is the argument with which the plugin starts itself as a relay.
const RelayArgument = "relay-ports"

// relayEndTimeout is how long a relay may take to close its ports.
const relayEndTimeout = 10 * time.Second

// endWord asks a relay to end. A connection without it asks whether there is one.
const endWord = "e"

// relayConfig is what a relay is started with.
type relayConfig struct {
	Socket   string // endWord asks the relay there to end, which closes the connection when it has
	NetNS    string // the container's network namespace
	Child    netip.Addr
	Mappings []rootlessport.PortMapping
}

// relaySocket is the path of the socket of a container's relay. A container has one, whichever of its networks is
// attached first: runtimes give all of them the same ports, and attach them at the same time.
func relaySocket(getenv func(string) string, container string) (string, error) {
	dir := getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		return "", invalid(types.ErrInvalidEnvironmentVariables,
			"published ports: set XDG_RUNTIME_DIR: the process that leads RootlessKit's on is found there")
	}
	sum := sha256.Sum256([]byte(container))
	return filepath.Join(dir, "usernet", "cni", hex.EncodeToString(sum[:8])), nil
}

// startRelay starts the process that leads ports of RootlessKit's network namespace, in which the plugin runs, into the
// container's, and returns when they are bound. A process that has not bound them when ctx ends is killed.
func (p plugin) startRelay(
	ctx context.Context,
	container, netns string,
	child *network.Endpoint,
	ports []network.PortBinding,
) error {
	socket, err := relaySocket(p.getenv, container)
	if err != nil {
		return err
	}
	c := relayConfig{Socket: socket, NetNS: netns, Child: child.IPv4.Addr(), Mappings: relayMappings(ports)}
	if !c.Child.IsValid() {
		c.Child = child.IPv6.Addr()
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"usernet-cni", RelayArgument}
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // the runtime's terminal and signals are not its own
	cmd.Stdin = strings.NewReader(string(text))
	said, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("published ports: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	line, err := bufio.NewReader(said).ReadString('\n')
	inTime := stop()
	if inTime && err == nil && line == "ok\n" {
		return cmd.Process.Release()
	}
	_ = cmd.Wait() // what it said is the error
	switch {
	case !inTime:
		line = "the process that leads them on has not bound them in time"
	case line == "":
		line = "the process that leads them on has ended"
	}
	return fmt.Errorf("published ports: %s", strings.TrimSpace(line))
}

// relayMappings are ports as rootlessport has them. A port of all addresses of one family is one of all addresses of
// both, as the runtime may ask for either: they are bound once.
func relayMappings(ports []network.PortBinding) []rootlessport.PortMapping {
	var list []rootlessport.PortMapping
	for _, b := range ports {
		m := rootlessport.PortMapping{ContainerPort: b.Port, HostPort: b.HostPort, Range: 1, Protocol: string(b.Proto)}
		if b.HostIP.IsValid() {
			m.HostIP = b.HostIP.String()
		}
		if !slices.Contains(list, m) {
			list = append(list, m)
		}
	}
	return list
}

// endRelay ends a container's relay, where there is one, and returns when its ports are closed.
func (p plugin) endRelay(container string) error {
	socket, err := relaySocket(p.getenv, container)
	if err != nil {
		return nil // none can have been started
	}
	unlock, err := lockRelays(filepath.Dir(socket))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("published ports: %w", err)
	}
	c, err := net.DialTimeout("unix", socket, relayEndTimeout)
	if errors.Is(err, unix.ECONNREFUSED) { // it was killed
		err = os.Remove(socket)
	}
	unlock()
	if c == nil || err != nil {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("published ports: %w", err)
		}
		return nil
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(relayEndTimeout)); err != nil {
		return err
	}
	_, err = io.WriteString(c, endWord)
	if err == nil {
		_, err = io.Copy(io.Discard, c)
	}
	if err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) { // it was just ending
		return fmt.Errorf("published ports: the process that leads them on does not end: %w", err)
	}
	return nil
}

// Relay is the process that leads ports on: as the daemon is on the host, it is the one that accepts in RootlessKit's
// network namespace. It says "ok" or an error on stdout when it has bound them, and serves them
// until it is asked to end, or the container has ended. It returns the exit status.
func Relay(stdin io.Reader, stdout *os.File) int {
	if err := relay(stdin, stdout); err != nil {
		fmt.Fprintln(stdout, err)
		return 1
	}
	return 0
}

func relay(stdin io.Reader, stdout *os.File) error {
	var c relayConfig
	if err := json.NewDecoder(stdin).Decode(&c); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	gone, err := nsend.Watch(ctx, c.NetNS, processOf(c.NetNS))
	if err != nil {
		return err
	}
	l, err := listenRelay(c.Socket)
	if err != nil || l == nil { // another network of the container was first
		if err != nil {
			return err
		}
		return say(stdout)
	}
	defer l.Close()
	ports, err := rootlessport.Publish(c.NetNS, c.Mappings, c.Child)
	if err != nil {
		return err
	}
	if err := say(stdout); err != nil {
		return errors.Join(err, ports.Close())
	}
	return serveRelay(ctx, l, gone, ports)
}

// serveRelay serves ports until it is asked to end at l, the container has gone, or ctx ends. l is closed first: nobody
// is to take a relay that ends for the one of a container that starts again.
func serveRelay(ctx context.Context, l net.Listener, gone <-chan struct{}, ports io.Closer) error {
	asked := make(chan net.Conn, 1)
	go awaitEnd(l, asked)
	var who net.Conn
	select {
	case <-ctx.Done():
	case <-gone:
	case who = <-asked:
	}
	_ = l.Close() // which removes the socket
	err := ports.Close()
	if who != nil {
		_ = who.Close() // now it knows
	}
	return err
}

// say tells the plugin that the ports are bound. The runtime waits for the end of stdout.
func say(stdout *os.File) error {
	_, err := io.WriteString(stdout, "ok\n")
	return errors.Join(err, stdout.Close())
}

// listenRelay listens where the relay is asked to end; nil: another relay does already.
func listenRelay(socket string) (net.Listener, error) {
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	unlock, err := lockRelays(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	l, err := net.Listen("unix", socket)
	if !errors.Is(err, unix.EADDRINUSE) {
		return l, err
	}
	c, err := net.DialTimeout("unix", socket, relayEndTimeout)
	if err == nil {
		return nil, c.Close()
	}
	if err := os.Remove(socket); err != nil { // of one that was killed
		return nil, err
	}
	return net.Listen("unix", socket)
}

// lockRelays locks the directory of the relays' sockets until unlock is called. Under the lock a socket that refuses
// connections is one of a relay that was killed: without it, it could be one of a relay that is about to listen.
func lockRelays(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(os.NewSyscallError("flock", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// awaitEnd sends the connection that asks for the end, until the listener is closed.
func awaitEnd(l net.Listener, asked chan<- net.Conn) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		b := make([]byte, len(endWord))
		_ = c.SetReadDeadline(time.Now().Add(relayEndTimeout)) // a connection of the kernel's takes it
		if _, err := io.ReadFull(c, b); err == nil && string(b) == endWord {
			asked <- c
			return
		}
		_ = c.Close()
	}
}

// processPath is the path of a process's network namespace.
var processPath = regexp.MustCompile(`^/proc/([0-9]+)/ns/net$`)

// processOf is the process whose network namespace path names; 0: it names none.
func processOf(path string) int {
	m := processPath.FindStringSubmatch(path)
	if m == nil {
		return 0
	}
	pid, _ := strconv.Atoi(m[1]) // beyond an int there is no process: 0
	return pid
}
