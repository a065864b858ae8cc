package stores

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/table"
)

// authority signs the certificates of a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority makes one; its certificate is in the file NAME.pem of dir.
func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir}
	a.cert, a.key = a.issue(name, &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	})
	return a
}

// issue makes a certificate, with its key in NAME-key.pem (PKCS 8).
func (a *authority) issue(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	err = errors.Join(os.WriteFile(a.file(name), cert, 0o600), os.WriteFile(a.file(name+"-key"), private, 0o600),
		// ZooKeeper's key store has both in one file.
		os.WriteFile(a.file(name+"-both"), append(private, cert...), 0o600))
	if err != nil {
		a.t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return parsed, key
}

func (a *authority) leaf(name string) {
	a.t.Helper()
	a.issue(name, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name+".pem") }

// attempt writes and reads a key by a backend, as a daemon would.
func attempt(t *testing.T, open func(kv.Location) (kv.Store, error), url string, options map[string]string) error {
	t.Helper()
	l, err := kv.Parse(url, options)
	if err != nil {
		t.Fatal(err)
	}
	store, err := open(l)
	if err != nil {
		t.Fatal(err)
	}
	id := overlay.NewHostID()
	b := kv.New(store, kv.Config{URL: l.String(), Host: id, Incarnation: 1})
	defer func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	began := time.Now()
	row := table.Row{Key: overlay.HostKey(id), Value: []byte("{}"), Owner: id, Incarnation: 1, Version: 1}
	err = b.Put(t.Context(), row)
	if took := time.Since(began); took > table.CallTimeout+10*time.Second {
		t.Errorf("%s: the call took %v", url, took)
	}
	if err != nil && strings.Contains(err.Error(), "sesame") {
		t.Errorf("the error tells the password: %v", err)
	}
	return err
}

// eventually makes an attempt until it works: a server that was just given its users may still be busy with it.
func eventually(t *testing.T, open func(kv.Location) (kv.Store, error), url string, options map[string]string) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = attempt(t, open, url, options); err == nil {
			return
		}
	}
	t.Errorf("%s: %v", url, err)
}

// refused wants an error of a kind that says something.
func refused[E error](t *testing.T, err error, texts ...string) {
	t.Helper()
	var kind E
	ok := errors.As(err, &kind)
	for _, text := range texts {
		ok = ok && strings.Contains(err.Error(), text)
	}
	if !ok {
		t.Errorf("%T %v; want %T with %q", err, err, kind, texts)
	}
}

func TestUnreachableStores(t *testing.T) {
	for scheme, open := range map[string]func(kv.Location) (kv.Store, error){"etcd": openEtcd, "consul": openConsul,
		"zk": openZooKeeper} {
		t.Run(scheme, func(t *testing.T) {
			url := fmt.Sprintf("%s://127.0.0.1:%d", scheme, freePort(t))
			refused[*table.UnavailableError](t, attempt(t, open, url, nil), "cannot be reached", "connection refused")
			refused[*table.UnavailableError](t, attempt(t, open, scheme+"://no-such-host.invalid", nil), "no such host")
		})
		t.Run(scheme+" that never answers", func(t *testing.T) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			refused[*table.UnavailableError](t, attempt(t, open, scheme+"://"+l.Addr().String(), nil),
				"cannot be reached")
		})
	}
}

func TestSecureEtcd(t *testing.T) {
	dir := t.TempDir()
	ca, other := newAuthority(t, dir, "ca"), newAuthority(t, dir, "other")
	ca.leaf("server")
	ca.leaf("client")
	other.leaf("stranger")
	s := startEtcd(t, "https", "--cert-file", ca.file("server"), "--key-file", ca.file("server-key"),
		"--trusted-ca-file", ca.file("ca"), "--client-cert-auth")
	tls := []string{"--cacert", ca.file("ca"), "--cert", ca.file("client"), "--key", ca.file("client-key")}
	s.ready = func(ctx context.Context) error {
		_, err := s.etcdctl(ctx, tls, "endpoint", "health")
		return err
	}
	s.start(t)
	for _, args := range [][]string{
		{"user", "add", "root:rootpw"}, {"user", "add", "usernet:sesame"}, {"role", "add", "usernet"},
		{"role", "grant-permission", "--prefix=true", "usernet", "readwrite", "/usernet/"},
		{"user", "grant-role", "usernet", "usernet"},
		{"user", "grant-role", "root", "root"}, {"auth", "enable"},
	} {
		if _, err := s.etcdctl(t.Context(), tls, args...); err != nil && !strings.Contains(err.Error(), "root") {
			t.Fatal(err)
		}
	}
	options := map[string]string{"kv.cacertfile": ca.file("ca"), "kv.certfile": ca.file("client"),
		"kv.keyfile": ca.file("client-key")}
	at := fmt.Sprintf("127.0.0.1:%d", s.port)
	eventually(t, openEtcd, "etcds://usernet:sesame@"+at, options)
	refused[*table.RefusedError](t, attempt(t, openEtcd, "etcds://usernet:open-sesame@"+at, options),
		"invalid user ID or password")
	refused[*table.RefusedError](t, attempt(t, openEtcd, "etcds://usernet:sesame@"+at+"/elsewhere", options),
		"permission denied")
	options["kv.cacertfile"] = ca.file("other")
	refused[*table.UnavailableError](t, attempt(t, openEtcd, "etcds://usernet:sesame@"+at, options), "certificate")
	refused[*table.UnavailableError](t, attempt(t, openEtcd, "etcd://"+at, nil), "cannot be reached")
}

func TestSecureConsul(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	newAuthority(t, dir, "other")
	ca.leaf("server")
	s := startConsul(t)
	https := freePort(t)
	plain := s.command
	s.command = func() *exec.Cmd {
		cmd := plain()
		cmd.Args = append(cmd.Args, "-hcl", fmt.Sprintf(`{"ports": {"https": %d}, "acl": {"enabled": true, "default_policy": "deny",
			"tokens": {"initial_management": "6e0c2a7e-0000-4000-8000-00000000cafe"}},
			"tls": {"https": {"cert_file": %q, "key_file": %q}}}`, https, ca.file("server"), ca.file("server-key")))
		return cmd
	}
	ready := s.ready
	s.ready = func(ctx context.Context) error {
		if err := ready(ctx); err != nil && !strings.Contains(err.Error(), "403") {
			return err
		}
		return nil
	}
	s.start(t)
	options := map[string]string{"kv.cacertfile": ca.file("ca")}
	at := fmt.Sprintf("127.0.0.1:%d", https)
	eventually(t, openConsul, "consuls://:6e0c2a7e-0000-4000-8000-00000000cafe@"+at, options)
	refused[*table.RefusedError](t, attempt(t, openConsul, "consuls://"+at, options), "403")
	refused[*table.RefusedError](t, attempt(t, openConsul, "consuls://:sesame@"+at, options), "403")
	options["kv.cacertfile"] = ca.file("other")
	refused[*table.UnavailableError](t, attempt(t, openConsul, "consuls://"+at, options), "certificate")
	refused[*table.RefusedError](t, attempt(t, openConsul, "consul://"+at, nil), "HTTPS")
}

func TestSecureZooKeeper(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	newAuthority(t, dir, "other")
	ca.leaf("server")
	secure := freePort(t)
	s := startZooKeeper(t, fmt.Sprintf("secureClientPort=%d", secure), "secureClientPortAddress=127.0.0.1",
		"serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory", "ssl.clientAuth=none",
		"ssl.keyStore.location="+ca.file("server-both"), "ssl.trustStore.location="+ca.file("ca"))
	s.start(t)
	options := map[string]string{"kv.cacertfile": ca.file("ca")}
	at := fmt.Sprintf("127.0.0.1:%d", secure)
	eventually(t, openZooKeeper, "zks://usernet:sesame@"+at, options)
	refused[*table.RefusedError](t, attempt(t, openZooKeeper, "zks://usernet:open-sesame@"+at, options),
		"not open to user usernet")
	refused[*table.RefusedError](t, attempt(t, openZooKeeper, "zks://"+at, options), "not open to everybody")
	options["kv.cacertfile"] = ca.file("other")
	refused[*table.UnavailableError](t, attempt(t, openZooKeeper, "zks://"+at, options), "certificate")
	refused[*table.UnavailableError](t, attempt(t, openZooKeeper, "zk://"+at, nil), "cannot be reached")
}
