package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"net"
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
// (net.ipv4.tcp_fwmark_accept), and a routing rule sends what has it back to the namespace's own loopback. Connections that
// the container opened itself have no such mark; theirs is divertMark, and divert.go says where it comes from.
type Sockets struct {
	helper *Helper
	target Target
	failed func(error)

	mu      sync.Mutex
	free    [kinds][]int
	used    [kinds]bool // the kinds that are asked for
	batch   [kinds]int  // how many are made at once; 0 before the first have come
	taken   time.Time   // when one last was
	wake    chan struct{}
	filling bool
	filled  chan struct{}   // while filling: closed when sockets have come, or none will
	broken  [uses]time.Time // until when none are made
	renew   bool            // the maker has to prepare the sandbox again
	fails   [uses]int       // how often Fail was called
	closed  bool
	wg      sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelFunc
}

// What the sockets of a stock are marked with, and the routing table and rule that bring their packets back. The numbers
// mean nothing; each is one that nobody uses by chance.
const (
	directMark  = 0x75736e74
	divertMark  = directMark | 1
	directTable = 0x75736e74
	directRule  = 30067
)

// Use is what a socket is for.
type Use int

// The uses.
const (
	Publish Use = iota // connections to the container
	Divert             // connections that the container opens
	uses
)

// kind is a use and a family.
type kind int

const kinds = 2 * int(uses)

func kindOf(u Use, v6 bool) kind {
	if v6 {
		return kind(2*u + 1)
	}
	return kind(2 * u)
}

func (k kind) use() Use { return Use(k / 2) }
func (k kind) v6() bool { return k%2 == 1 }

const (
	stockBatch  = 64               // sockets made at once; half of it left is little
	stockMany   = 240              // the same where they were used up once: what one message can carry (maxFiles)
	stockIdle   = 16               // what is left of each kind when nobody wants more
	stockLow    = 4                // below which a maker is sent in again then: not for each connection now and then
	stockLinger = 5 * time.Second  // how long the maker waits for more to do
	stockRetry  = 30 * time.Second // when to try again after something went wrong
	stockRefuse = 10 * time.Minute // and where the sandbox's kernel lacks what is needed, or its rules forbid it
)

// ErrNoSocket says that there is none now. Others may be on their way.
var ErrNoSocket = errors.New("no socket of the sandbox at hand")

// Sockets returns an empty stock for the sandbox t. It costs nothing until Warm or the first Take. Why there are none, failed
// is told: once for each time that it is tried.
func (d *Helper) Sockets(t Target, failed func(error)) *Sockets {
	ctx, cancel := context.WithCancel(context.Background())
	return &Sockets{helper: d, target: t, failed: failed, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1)}
}

// Warm fills the stock with sockets that will be asked for, in the background, so that the first Take finds something.
func (s *Sockets) Warm(u Use, v4, v6 bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[kindOf(u, false)] = s.used[kindOf(u, false)] || v4
	s.used[kindOf(u, true)] = s.used[kindOf(u, true)] || v6
	s.start(u)
}

// Take returns the descriptor of an unconnected, non-blocking socket, which becomes the caller's, or ErrNoSocket. Where the
// stock is low, it is filled in the background. For the first sockets of their kind Take waits until ctx ends; a stock that
// was used up is not waited for, as the gateway is faster.
func (s *Sockets) Take(ctx context.Context, u Use, v6 bool) (int, error) {
	k := kindOf(u, v6)
	for {
		fd, filled := s.take(k)
		if fd >= 0 {
			return fd, nil
		}
		if filled == nil {
			return -1, ErrNoSocket
		}
		select {
		case <-filled:
		case <-ctx.Done():
			return -1, ErrNoSocket
		}
	}
}

// take takes a socket from the stock. Without one it returns what is closed when more have come, or nil: none will.
func (s *Sockets) take(k kind) (fd int, filled <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[k], s.taken = true, time.Now()
	n := len(s.free[k])
	if n < stockLow || s.filling && s.isLow(k) {
		s.start(k.use())
	}
	if n > 0 {
		fd = s.free[k][n-1]
		s.free[k] = s.free[k][:n-1]
		return fd, nil
	}
	if s.batch[k] > 0 {
		s.batch[k] = stockMany
	} else if s.filling && s.works(k.use()) {
		filled = s.filled
	}
	return -1, filled
}

// isLow says whether sockets of a kind are to be made by a maker that is there. The caller holds mu.
func (s *Sockets) isLow(k kind) bool { return len(s.free[k]) < max(s.batch[k], stockBatch)/2 }

// Fail says that a connection did not come about as it should have: none of this use are made for a while, and then the
// sandbox is prepared again.
func (s *Sockets) Fail(u Use) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew = s.filling
	s.fail(u, stockRetry<<min(s.fails[u], 10)) // to eight hours: each try may cost a connection
	s.fails[u]++
}

func (s *Sockets) fail(u Use, pause time.Duration) {
	s.broken[u] = time.Now().Add(pause)
	for _, k := range []kind{kindOf(u, false), kindOf(u, true)} {
		s.drop(k, 0)
		s.used[k], s.batch[k] = false, 0
	}
}

// drop closes sockets of a kind until few enough are left.
func (s *Sockets) drop(k kind, left int) {
	for _, fd := range s.free[k][min(left, len(s.free[k])):] {
		_ = unix.Close(fd)
	}
	s.free[k] = s.free[k][:min(left, len(s.free[k]))]
}

// works says whether sockets of a use can be had. The caller holds mu.
func (s *Sockets) works(u Use) bool { return !s.closed && time.Now().After(s.broken[u]) }

// start has the stock filled, by the maker that is in the sandbox or by a new one. The caller holds mu.
func (s *Sockets) start(u Use) {
	switch {
	case !s.works(u):
	case s.filling:
		select {
		case s.wake <- struct{}{}:
		default: // it has been told
		}
	default:
		s.filling, s.filled = true, make(chan struct{})
		s.wg.Go(s.fill)
	}
}

// Close closes the stock and waits for its maker. Sockets that were taken stay open.
func (s *Sockets) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range kind(kinds) {
		s.drop(k, 0)
	}
}

// fill sends a maker into the sandbox and has it fill the stock, until no more is needed for a while.
func (s *Sockets) fill() {
	err := s.makeSockets()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filling, s.renew = false, false
	close(s.filled)
	for k := range kind(kinds) {
		s.drop(k, stockIdle)
		s.batch[k] = min(s.batch[k], stockBatch)
	}
	if err != nil && s.ctx.Err() == nil {
		s.failed(err)
		for u := range uses {
			s.fail(u, stockRetry)
		}
	}
}

func (s *Sockets) makeSockets() error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	maker, err := s.helper.enter(s.target, roleSockets, theirs)
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
	for {
		k, count, linger := s.low()
		if k < 0 {
			select {
			case <-s.wake:
				continue
			case <-time.After(linger):
			case <-s.ctx.Done():
			}
			return nil
		}
		fds, refused, err := order(ours, k, count)
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.free[k], s.batch[k] = append(s.free[k], fds...), max(s.batch[k], stockBatch)
		if refused != nil {
			s.failed(refused)
			s.fail(k.use(), stockRefuse)
		}
		close(s.filled)
		s.filled = make(chan struct{})
		s.mu.Unlock()
	}
}

// order has the maker at the other end of c make count sockets; refused is why it cannot.
func order(c *net.UnixConn, k kind, count int) (fds []int, refused, err error) {
	if _, err := c.Write([]byte{byte(k), byte(count)}); err != nil {
		return nil, nil, err
	}
	buf, oob := make([]byte, 4<<10), make([]byte, unix.CmsgSpace(maxFiles*4)) // an error, at most
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil || n == 0 {
		return nil, nil, errNoAnswer
	}
	if fds, err = receivedDescriptors(oob[:oobn]); err != nil {
		return nil, nil, err
	}
	var a answer
	if err := json.Unmarshal(buf[:n], &a); err != nil {
		return fds, nil, err
	}
	if a.Error != "" {
		refused = errors.New(a.Error)
	}
	return fds, refused, nil
}

// low is a kind that is in use and of which few are left, and how many to make, or -1 and how long to wait for that: not at
// all before the first Take, since most ports of most containers are not in use.
func (s *Sockets) low() (k kind, count int, linger time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range kind(kinds) {
		if s.used[k] && s.isLow(k) && s.works(k.use()) && !s.renew {
			return k, max(s.batch[k], stockBatch), 0
		}
	}
	if !s.renew {
		linger = time.Until(s.taken.Add(stockLinger))
	}
	return -1, 0, linger
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
