package hostconn

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"math/big"

	"github.com/usernet/usernet/overlay"
)

// What a secret and the two directions of a handshake are for: no two of them have the same authentication.
const (
	purpose       = "usernet: TCP connections from socket to socket, version 1"
	fromDialing   = "request"
	fromAccepting = "answer"
	exporterLabel = "EXPORTER-usernet-hostconn" // RFC 8446, 7.5
)

// secret is what two hosts have in common, bound to one TLS session where there is one.
type secret struct {
	key     []byte
	binding []byte // what the TLS session exports; nil: plain
}

// secret computes that of this host and the one that has a key, for a connection.
func (h *Host) secret(theirs overlay.Key, c *Conn) (*secret, error) {
	public, err := ecdh.X25519().NewPublicKey(theirs[:])
	if err != nil {
		return nil, err
	}
	shared, err := h.key.ECDH(public) // it fails for keys of low order
	if err != nil {
		return nil, err
	}
	s := &secret{}
	if s.key, err = hkdf.Key(sha256.New, shared, nil, purpose, sha256.Size); err != nil {
		return nil, err
	}
	if c.tls != nil {
		state := c.tls.ConnectionState()
		if s.binding, err = state.ExportKeyingMaterial(exporterLabel, nil, sha256.Size); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// sum authenticates a message of one direction. The binding has one length or none, the messages have one each.
func (s *secret) sum(direction string, message ...[]byte) []byte {
	m := hmac.New(sha256.New, s.key)
	m.Write([]byte(direction))
	m.Write([]byte{0, byte(len(s.binding))})
	m.Write(s.binding)
	for _, b := range message {
		m.Write(b)
	}
	return m.Sum(nil)
}

// newCertificate makes a certificate that says nothing: TLS 1.3 wants one of the accepting end.
func newCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	text := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, text, text, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// tlsConfig is that of either end. The certificate is not verified: the request and its answer are authenticated, and
// bound to the session.
func (h *Host) tlsConfig() *tls.Config {
	return &tls.Config{
		Certificates:                []tls.Certificate{h.cert},
		InsecureSkipVerify:          true,
		MinVersion:                  tls.VersionTLS13,
		CurvePreferences:            []tls.CurveID{tls.X25519}, // as WireGuard's
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
}
