package hostconn

import (
	"context"
	"crypto/ecdh"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/seal"
)

// PreambleLen is the length of what a connection begins with.
const PreambleLen = 8

// The preambles.
const (
	preambleSealed = "usernetT"
	preamblePlain  = "usernetP"
)

// Why there is no connection.
var (
	// ErrRefused says that the other host is who it should be, and does not make the connection.
	ErrRefused = errors.New("the other host does not take the connection")
	// ErrUnknown says that who asks is no host whose key counts.
	ErrUnknown = errors.New("not a host of the cluster")
	// ErrForged says that the other end does not have the key of the host that it should be.
	ErrForged = errors.New("the other end is not that host")
)

// Config says who this host is.
type Config struct {
	Host overlay.HostID
	Key  seal.PrivateKey
	// KeyOf returns the key of another host, where it counts.
	KeyOf func(overlay.HostID) (overlay.Key, bool)
}

// Host is this host's end of connections to others. Its methods may be called by many goroutines at once.
type Host struct {
	cfg  Config
	key  *ecdh.PrivateKey
	cert tls.Certificate
}

// New makes the host's end, with a certificate of this process's own.
func New(cfg Config) (*Host, error) {
	key, err := ecdh.X25519().NewPrivateKey(cfg.Key[:])
	if err != nil {
		return nil, fmt.Errorf("hostconn: %w", err)
	}
	cert, err := newCertificate()
	if err != nil {
		return nil, fmt.Errorf("hostconn: %w", err)
	}
	return &Host{cfg: cfg, key: key, cert: cert}, nil
}

// IsPreamble says whether a connection begins as this package's do.
func IsPreamble(b [PreambleLen]byte) bool {
	return string(b[:]) == preambleSealed || string(b[:]) == preamblePlain
}

// Dial asks the host at the other end of a connection for one to a container. Where it fails, conn is still the
// caller's to close; else it is the Conn's. ctx bounds the handshake.
func (h *Host) Dial(ctx context.Context, conn *net.TCPConn, sealed bool, to overlay.HostID, r Request) (*Conn, error) {
	key, ok := h.cfg.KeyOf(to)
	if !ok {
		return nil, ErrUnknown
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	c, err := h.dial(conn, sealed, key, r)
	if !stop() && err == nil {
		err = ctx.Err() // its deadline is set, or about to be
	}
	if err != nil {
		return nil, fmt.Errorf("connection by way of host %s: %w", to.Short(), err)
	}
	return c, nil
}

func (h *Host) dial(conn *net.TCPConn, sealed bool, key overlay.Key, r Request) (*Conn, error) {
	c := &Conn{tcp: conn}
	preamble := preamblePlain
	if sealed {
		preamble = preambleSealed
	}
	if _, err := io.WriteString(conn, preamble); err != nil {
		return nil, err
	}
	if sealed {
		c.tls = tls.Client(conn, h.tlsConfig())
		if err := c.tls.Handshake(); err != nil {
			return nil, err
		}
	}
	s, err := h.secret(key, c)
	if err != nil {
		return nil, err
	}
	r.From = h.cfg.Host
	request := s.request(r)
	if _, err := c.transport().Write(request[:]); err != nil {
		return nil, err
	}
	var answer [answerLen]byte
	if _, err := io.ReadFull(c.transport(), answer[:]); err != nil {
		return nil, err
	}
	switch status := answer[0]; {
	case !s.answered(request, answer):
		return nil, ErrForged
	case status != statusAccepted:
		return nil, ErrRefused
	}
	return c, c.prepare()
}

// Asked is a connection that another host asks for, which has been authenticated. The caller accepts or refuses it.
type Asked struct {
	Request
	Sealed bool // by TLS 1.3

	conn    *Conn
	secret  *secret
	request [requestLen]byte
}

// Answer reads what a connection asks for that began with a preamble. Where it fails, conn is still the caller's to
// close. The caller has set a deadline.
func (h *Host) Answer(conn *net.TCPConn, preamble [PreambleLen]byte) (*Asked, error) {
	a := &Asked{conn: &Conn{tcp: conn}, Sealed: string(preamble[:]) == preambleSealed}
	if a.Sealed {
		a.conn.tls = tls.Server(conn, h.tlsConfig())
		if err := a.conn.tls.Handshake(); err != nil {
			return nil, err
		}
	}
	if _, err := io.ReadFull(a.conn.transport(), a.request[:]); err != nil {
		return nil, err
	}
	r, err := parseRequest(a.request)
	if err != nil {
		return nil, err
	}
	key, ok := h.cfg.KeyOf(r.From)
	if !ok {
		return nil, ErrUnknown
	}
	if a.secret, err = h.secret(key, a.conn); err != nil {
		return nil, err
	}
	if !a.secret.asked(a.request) {
		return nil, ErrForged
	}
	a.Request = r
	return a, nil
}

// Accept says that the connection is made, and returns it.
func (a *Asked) Accept() (*Conn, error) {
	if err := a.answer(statusAccepted); err != nil {
		return nil, err
	}
	return a.conn, a.conn.prepare()
}

// Refuse says that it is not, and closes the connection.
func (a *Asked) Refuse() error { return errors.Join(a.answer(statusRefused), a.conn.tcp.Close()) }

func (a *Asked) answer(status byte) error {
	answer := a.secret.answer(a.request, status)
	_, err := a.conn.transport().Write(answer[:])
	return err
}
