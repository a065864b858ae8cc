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

// loopbackSockets is a pool of unconnected TCP sockets of the namespace, for connections from the host's loopback to
// the namespace's (--host-lo-to-ns-lo). Its methods may be called by many goroutines at once.
type loopbackSockets struct {
	make  func(context.Context) (*sandbox.Reply, error) // makes loopbackBatch of each family
	turn  chan struct{}                                 // holds a value while somebody uses pool
	pool  [2][]*os.File                                 // by family; guarded by turn
	ended bool                                          // guarded by turn
}

// newLoopbackSockets returns an empty pool for the namespace t.
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
	if len(l.pool[family]) == 0 {
		reply, err := l.make(ctx)
		if err != nil {
			return -1, fmt.Errorf("sockets of the namespace's loopback: %w", err)
		}
		for i := range l.pool {
			l.pool[i] = append(l.pool[i], reply.Streams[i]...)
		}
		if len(l.pool[family]) == 0 {
			return -1, unix.EAFNOSUPPORT
		}
	}
	last := len(l.pool[family]) - 1
	f := l.pool[family][last]
	l.pool[family] = l.pool[family][:last]
	if fd, err = descriptorOf(f); err != nil {
		return -1, err
	}
	if err := sockio.SetTCP(fd, net.KeepAliveConfig{}); err != nil {
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
	for i, files := range l.pool {
		for _, f := range files {
			errs = append(errs, f.Close())
		}
		l.pool[i] = nil
	}
	return errors.Join(errs...)
}

// datagramBatch is how many UDP sockets of each family are made at once, and datagramsLow how few are left when more
// are made.
const (
	datagramBatch = 64
	datagramsLow  = 16
)

// loopbackDatagrams is a pool of unconnected UDP sockets of the namespace, for clients at the host's loopback. Nobody
// waits for one: it is filled while there are some. Its methods may be called by many goroutines at once.
type loopbackDatagrams struct {
	make func(context.Context) (*sandbox.Reply, error) // makes datagramBatch of each family
	ctx  context.Context
	stop context.CancelFunc // ends ctx
	wg   sync.WaitGroup

	mu      sync.Mutex
	pool    [2][]*os.File // by family; guarded by mu
	filling bool          // guarded by mu
}

// newLoopbackDatagrams returns a full pool for the namespace t.
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
	for i := range l.pool {
		l.pool[i] = append(l.pool[i], reply.Datagrams[i]...)
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
	left := len(l.pool[family])
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
	f := l.pool[family][left-1]
	l.pool[family] = l.pool[family][:left-1]
	return descriptorOf(f)
}

// close gives what is left back.
func (l *loopbackDatagrams) close() error {
	l.stop()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for i, files := range l.pool {
		for _, f := range files {
			errs = append(errs, f.Close())
		}
		l.pool[i] = nil
	}
	return errors.Join(errs...)
}

// descriptorOf makes a file that came out of the namespace a non-blocking descriptor, which is the caller's.
func descriptorOf(f *os.File) (fd int, err error) {
	defer f.Close()
	if fd, err = sockio.Dup(f); err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return -1, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(fd))
	}
	return fd, nil
}
