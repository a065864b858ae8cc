package dhcp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// How long an answer is waited for at first, and at most: the time doubles (RFC 2131 section 4.1, RFC 8415 section 15).
// The first is shorter than DHCPv4's, since a container's start waits for it, and the last than DHCPv6's.
const (
	firstWait = time.Second
	lastWait  = 64 * time.Second
)

// maxReplies is how many messages of servers wait to be read; more are lost, as on any network.
const maxReplies = 16

// exchange sends messages and waits for their answers.
type exchange struct {
	replies chan *Message
	closed  <-chan struct{} // with the client
}

func newExchange(closed <-chan struct{}) exchange {
	return exchange{replies: make(chan *Message, maxReplies), closed: closed}
}

func (x *exchange) take(m *Message) {
	select {
	case x.replies <- m:
	default:
	}
}

// ask sends a message until an answer is found good; tries is how often at most, 0: until ctx ends.
func (x *exchange) ask(
	ctx context.Context, send func() error, tries int, good func(*Message) bool,
) (*Message, error) {
	wait := firstWait
	var unsent error
	for n := 0; tries == 0 || n < tries; n++ {
		if err := send(); err != nil {
			unsent = err // the device may come back
		}
		// RFC 2131 section 4.1: up to a second is added or taken away, so that clients do not ask all at once.
		timer := time.NewTimer(wait + time.Duration(rand.Int64N(int64(wait/2))))
		reply, err := x.await(ctx, timer.C, good)
		timer.Stop()
		switch {
		case reply != nil:
			return reply, nil
		case err != nil:
			return nil, noAnswer(err, unsent)
		}
		wait = min(2*wait, lastWait)
	}
	return nil, noAnswer(nil, unsent)
}

// noAnswer is ErrNoAnswer with what says more: why messages were not sent, and why nobody waits any longer. That the
// time is over says the error itself.
func noAnswer(ended, unsent error) error {
	err := ErrNoAnswer
	if ended != nil && !errors.Is(ended, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", err, ended)
	}
	if unsent != nil {
		err = fmt.Errorf("%w: sending: %w", err, unsent)
	}
	return err
}

// await returns the next answer that is good; nil where the time is over first.
func (x *exchange) await(
	ctx context.Context, over <-chan time.Time, good func(*Message) bool,
) (*Message, error) {
	for {
		select {
		case r := <-x.replies:
			if good(r) {
				return r, nil
			}
		case <-over:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-x.closed:
			return nil, context.Canceled
		}
	}
}

// pause waits, and is false where ctx ends meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// inTurn renews by asking the server first, and then all of them, each until its time is over.
func inTurn(
	ctx context.Context, l Lease, server, all func(context.Context) (Lease, error),
) (got Lease, err error) {
	for _, step := range []struct {
		until time.Time
		ask   func(context.Context) (Lease, error)
	}{{l.Rebind, server}, {l.Until, all}} {
		until, cancel := context.WithDeadline(ctx, step.until)
		got, err = step.ask(until)
		cancel()
		if err == nil || errors.Is(err, errRefused) || ctx.Err() != nil {
			return got, err
		}
	}
	return got, err
}
