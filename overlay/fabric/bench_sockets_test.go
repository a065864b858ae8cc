package fabric

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder/relay"
	"github.com/usernet/usernet/internal/sockio"
)

// hostPair is two hosts without containers: what connections between containers are held against.
func hostPair(t testing.TB, mtu int) benchPair {
	h := underlay(t, mtu)
	return benchPair{from: h[0], to: h[1], addr: "10.99.0.2", onlyTCP: true}
}

// socketPair is two containers whose connections go from socket to socket: each host has a relay between a socket of
// the container's namespace and a connection to the other host, plain or TLS 1.3. It is the cheapest form that such a
// way could have: nothing is decided, counted or handed over. The processor time of both relays is this process's, of
// which each is said to have half.
func socketPair(t testing.TB, mtu int, sealed bool) benchPair {
	h := underlay(t, mtu)
	c := [2]*netns{newNetns(t), newNetns(t)}
	const container, host = "10.9.0.2", "10.99.0.2"
	for _, n := range c {
		n.ip(t, "addr add "+container+"/32 dev lo")
	}
	way := spliced(t)
	if sealed {
		way = encrypted(t)
	}
	for _, port := range []string{benchPort, requestPort} {
		inside, outside := net.JoinHostPort(container, port), net.JoinHostPort(host, port)
		way.serve(t, relayEnd{listen: c[0], at: inside, dial: h[0], to: outside, client: true})
		way.serve(t, relayEnd{listen: h[1], at: outside, dial: c[1], to: inside})
	}
	return benchPair{from: c[0], to: c[1], addr: container, onlyTCP: true,
		cpu: func() (from, to time.Duration) {
			var u unix.Rusage
			must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
			half := time.Duration(u.Utime.Nano()+u.Stime.Nano()) / 2
			return half, half
		}}
}

// relayEnd is one host's part: it accepts in one namespace and connects in another. A client's connection to the other
// host is the one that it dials.
type relayEnd struct {
	listen, dial *netns
	at, to       string
	client       bool
}

// relayWay carries the bytes of two connections, of which the second leads to the other host, until both have ended.
type relayWay func(container, host *net.TCPConn, client bool)

// serve relays connections for the length of a test.
func (way relayWay) serve(t testing.TB, e relayEnd) {
	var l net.Listener
	must(t, e.listen.in(func() (err error) {
		l, err = net.Listen("tcp", e.at)
		return err
	}))
	var closing atomic.Bool
	done := make(chan struct{})
	t.Cleanup(func() { closing.Store(true); _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			accepted, err := l.Accept()
			if err != nil {
				return
			}
			var dialled net.Conn
			if e.dial.in(func() (err error) {
				dialled, err = net.DialTimeout("tcp", e.to, 10*time.Second)
				return err
			}) != nil || closing.Load() {
				_ = accepted.Close()
				continue
			}
			if e.client {
				go way(accepted.(*net.TCPConn), dialled.(*net.TCPConn), true)
			} else {
				go way(dialled.(*net.TCPConn), accepted.(*net.TCPConn), false)
			}
		}
	}()
}

// spliced is what the bypass does.
func spliced(t testing.TB) relayWay {
	r, err := sockio.NewReactor()
	must(t, err)
	pipes := relay.NewPipes(64, func(int) bool { return true })
	t.Cleanup(func() { r.Close(); pipes.Close() })
	loop := relay.NewLoop(r, pipes, slog.Default())
	return func(container, host *net.TCPConn, _ bool) {
		var fds [2]int
		for i, c := range []*net.TCPConn{container, host} {
			var err error
			if fds[i], err = sockio.Dup(c); err != nil {
				t.Error(err)
			}
			_ = c.Close()
		}
		loop.Relay(fds[0], fds[1], relay.Options{})
	}
}

// encrypted is TLS 1.3 to the other host.
func encrypted(t testing.TB) relayWay {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	text := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, text, text, key.Public(), key)
	must(t, err)
	cfg := &tls.Config{
		Certificates:                []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		InsecureSkipVerify:          true,
		MinVersion:                  tls.VersionTLS13,
		DynamicRecordSizingDisabled: true,
	}
	return func(container, host *net.TCPConn, client bool) {
		defer container.Close()
		defer host.Close()
		sealed := tls.Server(host, cfg)
		if client {
			sealed = tls.Client(host, cfg)
		}
		out := make(chan struct{})
		go func() {
			defer close(out)
			_, _ = io.CopyBuffer(struct{ io.Writer }{sealed}, struct{ io.Reader }{container}, make([]byte, 64<<10))
			_ = sealed.CloseWrite()
		}()
		_, _ = io.CopyBuffer(struct{ io.Writer }{container}, struct{ io.Reader }{sealed}, make([]byte, 64<<10))
		_ = container.CloseWrite()
		<-out
	}
}
