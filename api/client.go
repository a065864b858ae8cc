package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"syscall"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
)

// Client speaks to a daemon. Its methods may be called at the same time.
//
// Arguments called ref are a name, an id or a unique prefix of one. An error that the daemon answered with is an
// *Error; where nothing answers, it wraps ErrNoDaemon.
type Client struct {
	Socket string // path of the daemon's unix socket

	// OnSilence, unless it is nil, is called from a request that has had no answer for some seconds while the daemon
	// answers nothing else either. Requests that only read then end with ErrDaemonSilent after half a minute; others
	// wait on, since what they ask for may be done. Set it before the first request.
	OnSilence func(after time.Duration)

	http *http.Client
}

// NewClient makes a client for the daemon at socket. It connects with the first request.
func NewClient(socket string) *Client {
	return &Client{Socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// CloseIdle closes the connections on which nothing is asked now. Without it they stay until the daemon closes them
// after a minute, and each is a descriptor of both: it is for who makes a client for each request.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Error is an error that the daemon answered with.
type Error struct {
	Status int // HTTP status
	Msg    string
	Topic  errdefs.Topic // "" of a daemon that names none
}

// Error is the daemon's text.
func (e *Error) Error() string { return e.Msg }

// Unwrap is the error's class, so that the functions of github.com/containerd/errdefs, such as IsNotFound, know it.
func (e *Error) Unwrap() error {
	for class, status := range statusOf {
		if status == e.Status {
			return class
		}
	}
	return errdefs.ErrInternal
}

// TopicOf is the topic of the error, or that of its class.
func (e *Error) TopicOf() errdefs.Topic {
	if e.Topic != "" {
		return e.Topic
	}
	return errdefs.TopicOf(e.Unwrap())
}

// ErrNoDaemon says that nothing answers at the socket.
var ErrNoDaemon = errors.New("no usernet daemon answers")

// ErrDaemonEnded says that the daemon ended, or another took its place, while a request was being answered.
var ErrDaemonEnded = errors.New("the usernet daemon ended")

// missing is ENOENT in other words: Podman takes the kernel's, in what a hook says, for a command that it has not
// found.
type missing struct{ error }

func (missing) Error() string   { return "there is no socket" }
func (m missing) Unwrap() error { return m.error }

// Do sends body (nil: none) and decodes the answer into out (nil: dropped). The methods below are the usual way.
func (c *Client) Do(ctx context.Context, method, path string, body, out any) error {
	res, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, res.Body)
		return err
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return c.broken(ctx, err)
	}
	return nil
}

// broken is err, or ErrDaemonEnded where err says that the connection ended in the middle of an answer.
func (c *Client) broken(ctx context.Context, err error) error {
	cut := slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE},
		func(e error) bool { return errors.Is(err, e) })
	if cut && ctx.Err() == nil {
		return fmt.Errorf("%w (%s) before its answer was whole", ErrDaemonEnded, c.Socket)
	}
	return err
}

// advice says what to do where no connection to a daemon was made.
func advice(err error) string {
	if errors.Is(err, syscall.EACCES) {
		return "the socket is another user's: XDG_RUNTIME_DIR, USERNET_HOST or --host leads there"
	}
	return "start one with `usernet serve`"
}

// send returns a successful response, whose body the caller closes.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		rd = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://usernet"+path, rd)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := c.patiently(r)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			why := op.Err
			if errors.Is(why, syscall.ENOENT) {
				why = missing{why}
			}
			return nil, fmt.Errorf("%w at %s (%w): %s", ErrNoDaemon, c.Socket, why, advice(why))
		}
		return nil, c.broken(ctx, err)
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	var m struct{ Message string }
	if err := json.NewDecoder(res.Body).Decode(&m); err != nil || m.Message == "" {
		m.Message = res.Status
	}
	return nil, &Error{res.StatusCode, m.Message, errdefs.Topic(res.Header.Get(topicHeader))}
}

// path joins segments, each escaped, behind prefix.
func path(prefix string, segments ...string) string {
	for _, s := range segments {
		prefix += "/" + url.PathEscape(s)
	}
	return prefix
}

// withQuery appends q where it is not empty.
func withQuery(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}
