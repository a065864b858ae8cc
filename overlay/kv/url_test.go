package kv_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/usernet/usernet/overlay/kv"
)

func TestURLs(t *testing.T) {
	for _, test := range []struct {
		url, text string
		hosts     []string
		user, pw  string
	}{
		{"etcd://h", "etcd://h:2379/usernet", []string{"h:2379"}, "", ""},
		{"etcd://h:1,h2/a/b/", "etcd://h:1,h2:2379/a/b", []string{"h:1", "h2:2379"}, "", ""},
		{"etcds://u:p%40%2F@192.0.2.1", "etcds://u@192.0.2.1:2379/usernet", []string{"192.0.2.1:2379"}, "u", "p@/"},
		{"consul://[2001:db8::1]:8500", "consul://[2001:db8::1]:8500/usernet", []string{"[2001:db8::1]:8500"}, "", ""},
		{"consuls://:token@h", "consuls://h:8500/usernet", []string{"h:8500"}, "", "token"},
		{"zk://[2001:db8::1]", "zk://[2001:db8::1]:2181/usernet", []string{"[2001:db8::1]:2181"}, "", ""},
		{"zk://u:a@b@h", "zk://u@h:2181/usernet", []string{"h:2181"}, "u", "a@b"},
	} {
		l, err := kv.Parse(test.url, nil)
		if err != nil {
			t.Errorf("%s: %v", test.url, err)
			continue
		}
		if l.String() != test.text || !slices.Equal(l.Hosts, test.hosts) || l.User != test.user || l.Password !=
			test.pw {
			t.Errorf("%s: %v %q %q %q", test.url, l, l.Hosts, l.User, l.Password)
		}
	}
}

func TestBadURLs(t *testing.T) {
	for _, test := range []struct{ url, want string }{
		{"", "it is no URL"},
		{"h:2379", "it is no URL"},
		{"http://h", `no store is called "http"`},
		{"etcdss://h", `no store is called "etcdss"`},
		{"etcd://", `host ""`},
		{"etcd://h,", `host ""`},
		{"etcd://h:0", "has no port"},
		{"etcd://h:65536", "has no port"},
		{"etcd://h:http", "has no port"},
		{"etcd://2001:db8::1", "write IPv6 addresses as"},
		{"etcd://h/a b", `prefix "a b"`},
		{"etcd://h/../a", `prefix "../a"`},
		{"etcd://h/a//b", `prefix "a//b"`},
		{"etcd://h/a?x=1", "a query is not possible"},
		{"etcd://u:secret%zz@h", "the password has a %"},
		{"etcd://:secret@h", "but no user"},
		{"u:secret@h", "it is no URL"},
		{"http://u:secret@h", "no store is called"},
	} {
		_, err := kv.Parse(test.url, nil)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", test.url, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestOptions(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	l, err := kv.Parse("etcd://u@h", map[string]string{"kv.passwordfile": write("pw", "secret\n"), "kv.path": "/x/y"})
	if err != nil || l.Password != "secret" || l.Prefix != "x/y" || l.TLS {
		t.Errorf("%+v, %v", l, err)
	}
	for _, test := range []struct {
		options map[string]string
		want    string
	}{
		{map[string]string{"kv.cafile": "x"}, `option "kv.cafile" is not known`},
		{map[string]string{"kv.cacertfile": filepath.Join(dir, "none")}, "no such file"},
		{map[string]string{"kv.cacertfile": write("ca", "no certificate")}, "no certificate is in the file"},
		{map[string]string{"kv.certfile": write("cert", "x")}, "go together"},
		{map[string]string{"kv.certfile": write("cert", "x"), "kv.keyfile": write("key", "x")},
			"failed to find any PEM data"},
		{map[string]string{"kv.path": "a/../b"}, `prefix "a/../b"`},
		{map[string]string{"kv.cacertfile": write("big", strings.Repeat("x", 1<<20+1))}, "1048576 are possible"},
	} {
		if _, err := kv.Parse("etcd://h", test.options); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v; want %q", test.options, err, test.want)
		}
	}
}
