package kv

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// Location is where a store is, and as whom it is used.
type Location struct {
	Scheme   string   // etcd, consul or zk
	Hosts    []string // host:port, all of one store
	Prefix   string   // of all keys, without slashes around it
	User     string
	Password string
	// PEM texts, not files: their user may not be able to read files.
	TLS           bool
	CA, Cert, Key []byte
}

// DefaultPrefix is what usernet's keys are below, where a URL names nothing else.
const DefaultPrefix = "usernet"

// schemes are the stores that there are, with their ports.
var schemes = map[string]string{"etcd": "2379", "consul": "8500", "zk": "2181"}

// Options are those of --cluster-store-opt; the first four are Docker's names.
const (
	optCA           = "kv.cacertfile"
	optCert         = "kv.certfile"
	optKey          = "kv.keyfile"
	optPath         = "kv.path"
	optPasswordFile = "kv.passwordfile"
)

// maxSecretFile bounds the files that options name, in bytes.
const maxSecretFile = 1 << 20

// Parse reads the URL of a store and its options:
//
//	etcd://HOST[:PORT][,HOST[:PORT]...][/PREFIX], consul://, zk://
//
// with USER:PASSWORD@ before the hosts (for Consul the password is an ACL token), and an s after the scheme for TLS. An
// error never has the password in it.
func Parse(raw string, options map[string]string) (Location, error) {
	bad := func(why string) (Location, error) {
		return Location{}, fmt.Errorf(
			"cluster store %q: %s: give etcd://, consul:// or zk:// with HOST[:PORT][,HOST[:PORT]...][/PREFIX]",
			hidePassword(raw),
			why,
		)
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return bad("it is no URL")
	}
	l := Location{Scheme: scheme, Prefix: DefaultPrefix}
	if bare, is := strings.CutSuffix(scheme, "s"); is && schemes[bare] != "" {
		l.Scheme, l.TLS = bare, true
	}
	port := schemes[l.Scheme]
	if port == "" {
		return bad(fmt.Sprintf("no store is called %q", scheme))
	}
	authority, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		if err := l.setUser(authority[:i]); err != nil {
			return bad(err.Error())
		}
		authority = authority[i+1:]
	}
	for host := range strings.SplitSeq(authority, ",") {
		hostPort, err := WithPort(host, port)
		if err != nil {
			return bad(err.Error())
		}
		l.Hosts = append(l.Hosts, hostPort)
	}
	if strings.ContainsAny(path, "?#") {
		return bad("a query is not possible")
	}
	if err := l.setPrefix(path); err != nil {
		return bad(err.Error())
	}
	if err := l.setOptions(options); err != nil {
		return Location{}, err
	}
	return l, nil
}

func (l *Location) setUser(info string) error {
	user, password, _ := strings.Cut(info, ":")
	var err error
	if l.User, err = url.PathUnescape(user); err != nil {
		return errors.New("the user's name has a % that is no escape")
	}
	if l.Password, err = url.PathUnescape(password); err != nil {
		return errors.New("the password has a % that is no escape; write %25")
	}
	return nil
}

// WithPort checks HOST[:PORT], and adds a port where there is none.
func WithPort(host, port string) (string, error) {
	name, given, err := net.SplitHostPort(host)
	if err != nil {
		name, given = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), port
		if strings.Contains(name, ":") && !strings.HasPrefix(host, "[") {
			return "", fmt.Errorf("host %q: write IPv6 addresses as [ADDRESS]:PORT", host)
		}
	}
	if name == "" || strings.ContainsAny(name, " /[]@%") {
		return "", fmt.Errorf("host %q is no name or address", host)
	}
	if n, err := strconv.ParseUint(given, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("host %q has no port from 1 to 65535", host)
	}
	return net.JoinHostPort(name, given), nil
}

func (l *Location) setPrefix(path string) error {
	path = strings.Trim(path, "/")
	if path == "" {
		return nil
	}
	for part := range strings.SplitSeq(path, "/") {
		bad := strings.ContainsFunc(part, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '%' })
		if part == "" || part == "." || part == ".." || bad {
			return fmt.Errorf("prefix %q", path)
		}
	}
	l.Prefix = path
	return nil
}

func (l *Location) setOptions(options map[string]string) error {
	files := map[string]*[]byte{optCA: &l.CA, optCert: &l.Cert, optKey: &l.Key, optPasswordFile: new([]byte)}
	for name, value := range options {
		into := files[name]
		switch {
		case name == optPath:
			if err := l.setPrefix(value); err != nil {
				return fmt.Errorf("cluster store option %s: %w", optPath, err)
			}
			continue
		case into == nil:
			return fmt.Errorf("cluster store option %q is not known: give %s", name,
				strings.Join([]string{optCA, optCert, optKey, optPasswordFile, optPath}, ", "))
		}
		content, err := readSecret(value)
		if err != nil {
			return fmt.Errorf("cluster store option %s: %w", name, err)
		}
		*into = content
		l.TLS = l.TLS || name != optPasswordFile
	}
	if password := strings.TrimRight(string(*files[optPasswordFile]), "\r\n"); password != "" {
		l.Password = password
	}
	if l.Password != "" && l.User == "" && l.Scheme != "consul" {
		return fmt.Errorf("a password for the cluster store %s, but no user: write %s://USER@HOST", l, l.Scheme)
	}
	_, err := l.TLSConfig()
	return err
}

func readSecret(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSecretFile {
		return nil, fmt.Errorf("%s has %d bytes: %d are possible", name, info.Size(), maxSecretFile)
	}
	content := make([]byte, info.Size())
	n, err := f.Read(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return content[:n], nil
}

// TLSConfig is how connections are secured; nil: they are not. The machine's certificate authorities count where none
// is given.
func (l Location) TLSConfig() (*tls.Config, error) {
	if !l.TLS {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if l.CA != nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(l.CA) {
			return nil, fmt.Errorf("cluster store option %s: no certificate is in the file", optCA)
		}
	}
	if (l.Cert == nil) != (l.Key == nil) {
		return nil, fmt.Errorf("cluster store options %s and %s go together", optCert, optKey)
	}
	if l.Cert != nil {
		pair, err := tls.X509KeyPair(l.Cert, l.Key)
		if err != nil {
			return nil, fmt.Errorf("cluster store options %s and %s: %w", optCert, optKey, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// String is the URL without the password.
func (l Location) String() string {
	scheme, user := l.Scheme, ""
	if l.TLS {
		scheme += "s"
	}
	if l.User != "" {
		user = url.PathEscape(l.User) + "@"
	}
	return scheme + "://" + user + strings.Join(l.Hosts, ",") + "/" + l.Prefix
}

// hidePassword replaces what may be a password in what may be a URL.
func hidePassword(raw string) string {
	i := strings.LastIndexByte(raw, '@')
	if i < 0 {
		return raw
	}
	scheme, rest, ok := strings.Cut(raw[:i], "://")
	if !ok {
		return "***" + raw[i:]
	}
	user, _, has := strings.Cut(rest, ":")
	if has {
		user += ":***"
	}
	return scheme + "://" + user + raw[i:]
}
