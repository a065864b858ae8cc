package pasta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/sandbox"
)

// loopbackBatch is how many sockets of each family are made at once: the namespace is entered for that, which may take
// the start of a program, and one message brings 253 at most.
const loopbackBatch = 64

// loopbackSockets is a stock of unconnected TCP sockets of the namespace, for connections from the host's loopback to
// the namespace's (--host-lo-to-ns-lo). Its methods may be called by many goroutines at once.
type loopbackSockets struct {
	make  func(context.Context) (*sandbox.Reply, error) // makes loopbackBatch of each family
	turn  chan struct{}                                 // holds a value while somebody uses stock
	stock [2][]*os.File                                 // by family; guarded by turn
	ended bool                                          // guarded by turn
}

// newLoopbackSockets returns an empty stock for the namespace t.
func newLoopbackSockets(t sandbox.Target) *loopbackSockets {
	return &loopbackSockets{
		make: func(ctx context.Context) (*sandbox.Reply, error) {
			var none *sandbox.Helper // the process enters the namespace itself
			return none.Configure(ctx, t, sandbox.Request{StreamSockets: loopbackBatch})
		},
		turn: make(chan struct{}, 1),
	}
}

// get returns a socket, which is the caller's. It makes some where there are none, and waits for that until ctx ends.
func (l *loopbackSockets) get(ctx context.Context, ipv6 bool) (fd int, err error) {
	family := v4
	if ipv6 {
		family = v6
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return -1, ctx.Err()
	}
	defer func() { <-l.turn }()
	if l.ended {
		return -1, net.ErrClosed
	}
	if len(l.stock[family]) == 0 {
		reply, err := l.make(ctx)
		if err != nil {
			return -1, fmt.Errorf("sockets of the namespace's loopback: %w", err)
		}
		for i := range l.stock {
			l.stock[i] = append(l.stock[i], reply.Streams[i]...)
		}
		if len(l.stock[family]) == 0 {
			return -1, unix.EAFNOSUPPORT
		}
	}
	last := len(l.stock[family]) - 1
	f := l.stock[family][last]
	l.stock[family] = l.stock[family][:last]
	defer f.Close()
	fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	// os.File.Fd has made it blocking.
	if err := errors.Join(unix.SetNonblock(fd, true), sockio.SetTCP(fd, net.KeepAliveConfig{})); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// close gives what is left back.
func (l *loopbackSockets) close() error {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	l.ended = true
	var errs []error
	for i, files := range l.stock {
		for _, f := range files {
			errs = append(errs, f.Close())
		}
		l.stock[i] = nil
	}
	return errors.Join(errs...)
}

// datagramBatch is how many UDP sockets of each family are made at once, and datagramsLow how few are left when more
// are made.
const (
	datagramBatch = 64
	datagramsLow  = 16
)

// loopbackDatagrams is a stock of unconnected UDP sockets of the namespace, for clients at the host's loopback. Nobody
// waits for one: it is filled while there are some. Its methods may be called by many goroutines at once.
type loopbackDatagrams struct {
	make func(context.Context) (*sandbox.Reply, error) // makes datagramBatch of each family
	ctx  context.Context
	stop context.CancelFunc // ends ctx
	wg   sync.WaitGroup

	mu      sync.Mutex
	stock   [2][]*os.File // by family; guarded by mu
	filling bool          // guarded by mu
}

// newLoopbackDatagrams returns a full stock for the namespace t.
func newLoopbackDatagrams(ctx context.Context, t sandbox.Target) (*loopbackDatagrams, error) {
	l := &loopbackDatagrams{make: func(ctx context.Context) (*sandbox.Reply, error) {
		var none *sandbox.Helper // the process enters the namespace itself
		return none.Configure(ctx, t, sandbox.Request{DatagramSockets: datagramBatch})
	}}
	l.ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := l.fill(ctx); err != nil {
		l.stop()
		return nil, err
	}
	return l, nil
}

func (l *loopbackDatagrams) fill(ctx context.Context) error {
	reply, err := l.make(ctx)
	if err != nil {
		return fmt.Errorf("sockets of the namespace's loopback: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.stock {
		l.stock[i] = append(l.stock[i], reply.Datagrams[i]...)
	}
	return nil
}

// get returns a socket, which is the caller's.
func (l *loopbackDatagrams) get(ipv6 bool) (fd int, err error) {
	family := v4
	if ipv6 {
		family = v6
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	left := len(l.stock[family])
	if left <= datagramsLow && !l.filling && l.ctx.Err() == nil {
		l.filling = true
		l.wg.Go(func() {
			_ = l.fill(l.ctx) // the namespace ends, or the next one that asks has it tried again
			l.mu.Lock()
			defer l.mu.Unlock()
			l.filling = false
		})
	}
	if left == 0 {
		return -1, unix.EAGAIN
	}
	f := l.stock[family][left-1]
	l.stock[family] = l.stock[family][:left-1]
	defer f.Close()
	fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // os.File.Fd has made it blocking
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// close gives what is left back.
func (l *loopbackDatagrams) close() error {
	l.stop()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for i, files := range l.stock {
		for _, f := range files {
			errs = append(errs, f.Close())
		}
		l.stock[i] = nil
	}
	return errors.Join(errs...)
}
