package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// ErrDaemonSilent says that a daemon accepts connections and answers nothing.
var ErrDaemonSilent = errors.New("the usernet daemon does not answer")

// Times of requests without an answer. They are variables for tests.
var (
	silentAfter = 5 * time.Second  // when the client looks whether the daemon answers anything, and again each time
	probeWait   = 2 * time.Second  // how long that may take
	silentEnd   = 30 * time.Second // of silence without a break end a request that only reads
)

// patiently does a request. Where OnSilence is set, it looks meanwhile whether the daemon answers at all: a request may
// take long, as a container's end does, and a daemon that was stopped or hangs looks the same to it.
func (c *Client) patiently(r *http.Request) (*http.Response, error) {
	if c.OnSilence == nil {
		return c.http.Do(r)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	answered := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { c.watch(ctx, cancel, answered, r.Method == http.MethodGet) })
	res, err := c.http.Do(r.WithContext(ctx))
	close(answered)
	watch.Wait()
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, ErrDaemonSilent) {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	res.Body = &cancellingBody{res.Body, cancel}
	return res, nil
}

// watch returns once the request was answered, or has been ended by it.
func (c *Client) watch(ctx context.Context, end context.CancelCauseFunc, answered <-chan struct{}, reads bool) {
	since := time.Now() // from when on nothing was answered
	tick := time.NewTicker(silentAfter)
	defer tick.Stop()
	for said := false; ; {
		select {
		case <-answered:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if c.answersAnything(ctx, answered) {
			since = time.Now()
			continue
		}
		after := time.Since(since).Round(time.Second)
		if !said {
			said = true
			c.OnSilence(after)
		}
		if reads && after >= silentEnd {
			end(fmt.Errorf("%w (%s, for %v)", ErrDaemonSilent, c.Socket, after))
			return
		}
	}
}

// answersAnything says whether the daemon answers another request in time, or the watched one meanwhile. A daemon that
// is gone counts as one that answers: the request ends by itself.
func (c *Client) answersAnything(ctx context.Context, answered <-chan struct{}) bool {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		other := NewClient(c.Socket)
		defer other.http.CloseIdleConnections()
		_, err := other.Info(ctx)
		done <- err
	}()
	select {
	case err := <-done:
		return !errors.Is(err, context.DeadlineExceeded)
	case <-answered:
		cancel()
		<-done
		return true
	}
}

// cancellingBody frees the context of its request when it is closed.
type cancellingBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *cancellingBody) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}
