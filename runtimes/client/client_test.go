package client

import (
	"errors"
	"os"
	"testing"
)

func TestWhereTheSocketIs(t *testing.T) {
	for _, test := range []struct {
		name, socket, want string
		env                map[string]string
	}{
		{"given", "/a/b.sock", "/a/b.sock",
			map[string]string{"USERNET_HOST": "unix:///c", "XDG_RUNTIME_DIR": "/run/user/7"}},
		{"given as a URL", "unix:///a/b.sock", "/a/b.sock", nil},
		{"in the environment", "", "/c",
			map[string]string{"USERNET_HOST": "unix:///c", "XDG_RUNTIME_DIR": "/run/user/7"}},
		{"the runtime directory", "", "/run/user/7/usernet/usernet.sock",
			map[string]string{"XDG_RUNTIME_DIR": "/run/user/7", "_CONTAINERS_ROOTLESS_UID": "8"}},
		{"Podman's user", "", "/run/user/8/usernet/usernet.sock", map[string]string{"_CONTAINERS_ROOTLESS_UID": "8"}},
	} {
		c, err := New(test.socket, func(k string) string { return test.env[k] })
		if err != nil || c.Socket != test.want {
			t.Errorf("%s: %+v, %v, want %s", test.name, c, err, test.want)
		}
	}
	for _, bad := range []string{"tcp://1.2.3.4:5", "relative/path"} {
		if c, err := New(bad, func(string) string { return "" }); err == nil {
			t.Errorf("%s is taken: %v", bad, c.Socket)
		}
	}
	none := func(k string) string { return map[string]string{"_CONTAINERS_ROOTLESS_UID": "../../tmp"}[k] }
	if c, err := New("", none); !errors.Is(err, ErrNoSocket) {
		t.Errorf("a uid that is none, as uid %d: %v, %v", os.Getuid(), c, err)
	}
}
