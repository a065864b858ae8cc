package api

import (
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// countingListener counts the connections that are held.
type countingListener struct {
	net.Listener
	held atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.held.Add(1)
	return &countedConn{Conn: c, held: &l.held}, nil
}

type countedConn struct {
	net.Conn
	held *atomic.Int64
	once atomic.Bool
}

func (c *countedConn) Close() error {
	if c.once.CompareAndSwap(false, true) {
		c.held.Add(-1)
	}
	return c.Conn.Close()
}

// TestMetricsHoldFewConnections has somebody without the token connect often and say nothing, or stay after a refusal:
// descriptors are the containers' too.
func TestMetricsHoldFewConnections(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &countingListener{Listener: tcp}
	s := MetricsServer(nobody{}, "0123456789abcdef", slog.New(slog.DiscardHandler))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(l)
	}()
	defer func() {
		_ = s.Close()
		<-ended
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		return c
	}
	c := dial()
	if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err != nil {
		t.Error("a connection without the token stays:", err)
	}
	for range 4 * maxScrapers {
		dial()
	}
	// Those beyond the bound are closed, so that the ones that hold it do not keep others waiting without a word.
	if _, err := io.ReadAll(dial()); err != nil {
		t.Error("a connection beyond the bound stays:", err)
	}
	if n := l.held.Load(); n > maxScrapers {
		t.Errorf("%d connections are held, %d are the most", n, maxScrapers)
	}
}
