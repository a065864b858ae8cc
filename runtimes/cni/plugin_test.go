package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// detacher is a daemon that is asked for nothing but an end.
type detacher struct {
	daemon
	err error
}

func (d detacher) Detach(context.Context, string) error { return d.err }
func (d detacher) DetachLater(string) error             { return nil }

// TestPortsStayWithTheirContainer: a DEL that fails leaves the container as it was, and nobody would lead its ports on.
func TestPortsStayWithTheirContainer(t *testing.T) {
	dir, err := os.MkdirTemp("", "") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := plugin{
		getenv: func(name string) string { return map[string]string{"XDG_RUNTIME_DIR": dir}[name] },
		stderr: io.Discard,
	}
	socket, err := relaySocket(p.getenv, "c1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 2)
	t.Cleanup(func() {
		_ = l.Close()
		for range asked {
		}
	})
	go func() { // a relay
		defer close(asked)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			word := make([]byte, len(endWord))
			_, _ = io.ReadFull(c, word)
			asked <- string(word)
			_ = c.Close()
		}
	}()
	if err := p.detach(t.Context(), detacher{err: api.ErrDaemonSilent}, "k", "c1"); err == nil {
		t.Error("a daemon does not answer, and the end of the attachment is claimed")
	}
	if len(asked) != 0 {
		t.Errorf("the relay was asked to end, with the container still attached")
	}
	if err := p.detach(t.Context(), detacher{}, "k", "c1"); err != nil {
		t.Error(err)
	}
	if word := <-asked; word != endWord || len(asked) != 0 {
		t.Errorf("the relay was told %q", word)
	}
	gone := fmt.Errorf("%w (%w)", api.ErrNoDaemon, syscall.ECONNREFUSED)
	if err := p.detach(t.Context(), detacher{err: gone}, "k", "c1"); err != nil {
		t.Errorf("a daemon that has ended: %v", err)
	}
	if word := <-asked; word != endWord {
		t.Errorf("without a daemon the relay was told %q", word)
	}
}

// TestAnotherADDOfTheSameInterface may ask for the ports that there are, and for no others.
func TestAnotherADDOfTheSameInterface(t *testing.T) {
	port := func(host uint16) network.PortBinding {
		return network.PortBinding{HostPort: host, HostEnd: host, Port: 80, End: 80, Proto: network.TCP}
	}
	have := network.Container{Name: "c1", Ports: []network.PortBinding{port(8080), port(8081)}}
	for name, test := range map[string]struct {
		ports []network.PortBinding
		want  string
	}{
		"nothing":      {},
		"the same":     {have.Ports, ""},
		"fewer ports":  {have.Ports[:1], ""},
		"another port": {[]network.PortBinding{port(8080), port(8082)}, "8082:80/tcp"},
	} {
		spec := network.ContainerSpec{Ports: test.ports, Networks: []network.NamedEndpointSpec{{Network: "n"}}}
		err := samePorts(spec, have)
		var coded *types.Error
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (!errors.As(err, &coded) || coded.Code != CodeTaken ||
			!strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %s with code %d", name, err, test.want, CodeTaken)
		}
	}
}
