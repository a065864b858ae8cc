package zookeeper

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/usernet/usernet/overlay/kv"
)

// handshakeTimeout is how long a server may take to answer the request that begins or resumes a session, the first on a
// connection. The library would wait for ten times two thirds of the session's length, and a server that is starting
// can accept a connection and never answer: ZooKeeper 3.8 fails to close it before its data is loaded (removeCnxn).
const handshakeTimeout = 10 * time.Second

// Dialer connects to servers, with TLS where the URL says so.
func Dialer(l kv.Location) (zk.Dialer, error) {
	config, err := l.TLSConfig()
	if err != nil {
		return nil, err
	}
	return func(network, address string, timeout time.Duration) (net.Conn, error) {
		d := &net.Dialer{Timeout: timeout}
		var c net.Conn
		var err error
		if config == nil {
			c, err = d.Dial(network, address)
		} else {
			c, err = tls.DialWithDialer(d, network, address, config)
		}
		if err != nil {
			return nil, err
		}
		return &handshakeConn{Conn: c, most: handshakeTimeout}, nil
	}, nil
}

// handshakeConn bounds the wait for the first answer. One goroutine of the library's sets deadlines for reading.
type handshakeConn struct {
	net.Conn
	most  time.Duration
	begun bool
}

// SetReadDeadline implements net.Conn.
func (c *handshakeConn) SetReadDeadline(t time.Time) error {
	if latest := time.Now().Add(c.most); !c.begun && t.After(latest) {
		t = latest
	}
	c.begun = true
	return c.Conn.SetReadDeadline(t)
}
