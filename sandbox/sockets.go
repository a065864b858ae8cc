package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Sockets is a stock of TCP sockets that were made inside a sandbox's network namespace. A socket stays in the namespace
// that it was made in, so that this process, outside, can connect one to the sandbox's own addresses, and, since they are
// transparent (ip(7), IP_TRANSPARENT), in the name of any client. The kernel then moves the data of a published port
// without TAP and netstack between: 3 times as fast.
//
// The replies find their way by a mark: the sockets have directMark, connections that they are accepted into take it over
// (net.ipv4.tcp_fwmark_accept), and a routing rule sends what has it back to the namespace's own loopback.
type Sockets struct {
	doorman *Doorman
	target  Target

	mu      sync.Mutex
	free    [2][]int // by family: IPv4, IPv6
	used    [2]bool  // the families that are asked for
	taken   bool     // since the maker last looked
	wake    chan struct{}
	filling bool
	broken  time.Time // when the sandbox last refused
	closed  bool
	wg      sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelFunc
}

// What the sockets of a stock are marked with, and the routing table and rule that bring their packets back. The numbers
// mean nothing; each is one that nobody uses by chance.
const (
	directMark  = 0x75736e74
	directTable = 0x75736e74
	directRule  = 30067
)

const (
	stockLow     = 32               // a stock below this is filled up
	stockBatch   = 64               // sockets made at once
	stockLinger  = 5 * time.Second  // how long the maker waits for more to do
	stockRetry   = 30 * time.Second // after a sandbox refused
	familyOrders = "46"             // what asks the maker for sockets of a family
)

// ErrNoSocket says that there is none now. Others may be on their way.
var ErrNoSocket = errors.New("no socket of the sandbox at hand")

// Sockets returns an empty stock for the sandbox t. It costs nothing until Warm or the first Take.
func (d *Doorman) Sockets(t Target) *Sockets {
	ctx, cancel := context.WithCancel(context.Background())
	return &Sockets{doorman: d, target: t, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1)}
}

// Warm fills the stock for the families that will be asked for, in the background, so that the first Take finds something.
func (s *Sockets) Warm(v4, v6 bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = [2]bool{s.used[0] || v4, s.used[1] || v6}
	s.start()
}

// Take returns the descriptor of an unconnected, non-blocking socket, which becomes the caller's, or ErrNoSocket. It never
// waits: where the stock is low, it is filled in the background.
func (s *Sockets) Take(v6 bool) (int, error) {
	i := 0
	if v6 {
		i = 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[i], s.taken = true, true
	n := len(s.free[i])
	if n < stockLow {
		s.start()
	}
	if n == 0 {
		return -1, ErrNoSocket
	}
	fd := s.free[i][n-1]
	s.free[i] = s.free[i][:n-1]
	return fd, nil
}

// start has the stock filled, by the maker that is in the sandbox or by a new one. The caller holds mu.
func (s *Sockets) start() {
	switch {
	case s.filling:
		select {
		case s.wake <- struct{}{}:
		default: // it has been told
		}
	case !s.closed && time.Since(s.broken) > stockRetry:
		s.filling = true
		s.wg.Go(s.fill)
	}
}

// Close closes the stock and waits for its maker. Sockets that were taken stay open.
func (s *Sockets) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for i, list := range s.free {
		for _, fd := range list {
			errs = append(errs, unix.Close(fd))
		}
		s.free[i] = nil
	}
	return errors.Join(errs...)
}

// fill sends a maker into the sandbox and has it fill the stock, until no more is needed for a while.
func (s *Sockets) fill() {
	err := s.makeSockets()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filling = false
	if err != nil && s.ctx.Err() == nil {
		s.broken = time.Now()
	}
}

func (s *Sockets) makeSockets() error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	maker, err := s.doorman.enter(s.target, roleSockets, theirs)
	_ = theirs.Close()
	if err != nil {
		return err
	}
	defer func() {
		_ = ours.Close() // which is its end
		_, _ = maker.wait()
	}()
	stop := context.AfterFunc(s.ctx, maker.kill)
	defer stop()
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(maxFiles*4))
	for {
		family, linger := s.low()
		if family < 0 {
			select {
			case <-s.wake:
				continue
			case <-time.After(linger):
			case <-s.ctx.Done():
			}
			return nil
		}
		if _, err := ours.Write([]byte(familyOrders[family : family+1])); err != nil {
			return err
		}
		n, oobn, _, _, err := ours.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return errNoAnswer
		}
		fds, err := receivedDescriptors(oob[:oobn])
		if err != nil {
			return err
		}
		var a answer
		if err := json.Unmarshal(buf[:n], &a); err == nil && a.Error != "" {
			return errors.New(a.Error)
		}
		s.mu.Lock()
		s.free[family] = append(s.free[family], fds...)
		s.mu.Unlock()
	}
}

// low is a family that is in use and has few sockets left, or -1 and how long to wait for that: not at all before the first
// Take, since most ports of most containers are not in use.
func (s *Sockets) low() (family int, linger time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, list := range s.free {
		if s.used[i] && len(list) < stockLow && !s.closed {
			return i, 0
		}
	}
	if s.taken {
		linger = stockLinger
	}
	s.taken = false
	return -1, linger
}

func receivedDescriptors(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var all []int
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
		}
		all = append(all, fds...)
	}
	return all, nil
}

// runSockets is the maker: it prepares the namespace once, then answers each order with sockets.
func runSockets() error {
	c, err := unixConn(controlFD)
	if err != nil {
		return fmt.Errorf("maker of sockets without a control socket: %w", err)
	}
	defer c.Close()
	prepared := routeMarked()
	order := make([]byte, 1)
	for {
		n, err := c.Read(order)
		if err != nil || n == 0 {
			return nil // nobody wants more
		}
		var a answer
		var fds []int
		if err = prepared; err == nil {
			fds, err = markedSockets(order[0] == familyOrders[1])
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := sendSockets(c, a, fds); err != nil {
			return err
		}
	}
}

func sendSockets(c *net.UnixConn, a answer, fds []int) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, rights, nil)
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	return err
}

// markedSockets makes a batch of sockets for direct connections.
func markedSockets(v6 bool) (fds []int, err error) {
	family, level, transparent := unix.AF_INET, unix.IPPROTO_IP, unix.IP_TRANSPARENT
	if v6 {
		family, level, transparent = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	}
	defer func() {
		if err != nil {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
			fds = nil
		}
	}()
	for range stockBatch {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fds, os.NewSyscallError("socket", err)
		}
		fds = append(fds, fd)
		for _, o := range [][3]int{{unix.SOL_SOCKET, unix.SO_MARK, directMark}, {level, transparent, 1}, {unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}} {
			if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
				return fds, os.NewSyscallError("setsockopt", err)
			}
		}
	}
	return fds, nil
}
