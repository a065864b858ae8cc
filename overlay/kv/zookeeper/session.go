package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/usernet/usernet/overlay/kv"
)

// maxCalls is how many calls of a session may wait for answers.
const maxCalls = 64

// session is a session with one of the servers.
type session struct {
	conn  *zk.Conn
	hosts int
	calls chan struct{} // has a token for each call that is made
	quit  chan struct{} // closed by end
	ended sync.Once

	mu      sync.Mutex    // guards what follows
	changed chan struct{} // closed, and another made, with each change
	up      bool          // there is a server
	since   time.Time     // when up became what it is
	known   bool          // the server knows the user, or there is none
	err     error         // why a server could not be connected to
	fails   int           // how often, since there was one
	expired bool          // the server ended it, or it is revoked
	watches map[*watch]struct{}
}

// begin begins a session, which lives for ttl after the servers last heard of it. The caller calls end.
func (s *Store) begin(ttl time.Duration) (*session, error) {
	c := &session{
		hosts: len(s.location.Hosts), calls: make(chan struct{}, maxCalls), quit: make(chan struct{}),
		changed: make(chan struct{}), since: time.Now(), known: s.location.User == "", watches: map[*watch]struct{}{},
	}
	dial := func(network, address string, timeout time.Duration) (net.Conn, error) {
		conn, err := s.dial(network, address, timeout)
		if err != nil {
			c.failed(err)
		}
		return conn, err
	}
	conn, _, err := zk.Connect(
		s.location.Hosts,
		ttl,
		zk.WithDialer(dial),
		zk.WithLogger(quiet{}),
		zk.WithLogInfo(false),
		zk.WithEventCallback(c.event),
		zk.WithMaxBufferSize(maxAnswer),
	)
	if err != nil {
		return nil, err
	}
	c.conn = conn
	if !c.known {
		s.ending.Go(func() { c.authenticate(s.location) })
	}
	return c, nil
}

// authenticate tells the server who this is. The library tells it to each further server.
func (c *session) authenticate(l kv.Location) {
	for {
		err := c.conn.AddAuth("digest", []byte(l.User+":"+l.Password)) // it waits for a server
		if err == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.known = true
			c.change()
			return
		}
		select {
		case <-c.quit:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// end closes the session, which takes a second or two where there is no server. Its watches end.
func (c *session) end() {
	c.ended.Do(func() {
		close(c.quit)
		c.mu.Lock()
		for w := range c.watches {
			w.add(zk.Event{Type: zk.EventNotWatching, Err: zk.ErrSessionExpired})
		}
		c.mu.Unlock()
		c.conn.Close()
	})
}

// quiet is the library's log. Its lines are what calls return.
type quiet struct{}

// Printf implements zk.Logger.
func (quiet) Printf(string, ...any) {}

// failed notes why there is no server.
func (c *session) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	c.fails++
	c.change()
}

// change wakes what waits for a change. The caller holds mu.
func (c *session) change() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// event is called by the library, and does not block.
func (c *session) event(e zk.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Type != zk.EventSession {
		for w := range c.watches {
			w.add(e)
		}
		return
	}
	var up bool
	switch e.State {
	case zk.StateHasSession:
		up, c.err, c.fails = true, nil, 0
	case zk.StateDisconnected:
	case zk.StateExpired, zk.StateAuthFailed:
		c.expired = true
		for w := range c.watches {
			w.add(zk.Event{Type: zk.EventNotWatching, Err: zk.ErrSessionExpired})
		}
	default:
		return
	}
	if up != c.up {
		c.up, c.since = up, time.Now()
	}
	c.change()
}

// away is how long there has been no server.
func (c *session) away() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.up {
		return 0
	}
	return time.Since(c.since)
}

// await waits for a server, until none can be connected to or ctx is done.
func (c *session) await(ctx context.Context) error {
	for {
		c.mu.Lock()
		ready, err, all, changed := c.up && c.known, c.err, c.fails >= c.hosts, c.changed
		c.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case ready:
			return nil
		case all:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("no server begins a session: %w", ctx.Err())
		}
	}
}
