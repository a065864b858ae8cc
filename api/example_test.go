package api_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/network/boltstore"
)

// networks is a backend with networks and nothing else.
type networks struct {
	api.Backend
	m *network.Model
}

func (n networks) Networks() []*network.Network                     { return n.m.Networks() }
func (n networks) Network(ref string) (*network.Network, error)     { return n.m.Network(ref) }
func (n networks) Containers() []*network.Container                 { return n.m.Containers() }
func (n networks) Container(ref string) (*network.Container, error) { return n.m.Container(ref) }
func (n networks) ContainersElsewhere(string) []*network.Container  { return nil }
func (n networks) RemoveNetwork(_ context.Context, ref string) error {
	return n.m.RemoveNetwork(ref)
}
func (n networks) CreateNetwork(_ context.Context, s network.NetworkSpec) (*network.Network, string, error) {
	return n.m.CreateNetwork(s)
}

// A program that makes a network and looks at it. The daemon is one of its own here; `usernet serve` is the usual one.
func ExampleClient() {
	dir, err := os.MkdirTemp("", "usernet-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	model, err := boltstore.OpenModel(filepath.Join(dir, "db"), network.Options{})
	if err != nil {
		panic(err)
	}
	defer model.Close()
	listener, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		panic(err)
	}
	server := api.NewServer(networks{m: model}, slog.New(slog.DiscardHandler))
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	ctx := context.Background()
	client := api.NewClient(filepath.Join(dir, "sock"))
	if _, err := client.NetworkCreate(ctx, network.NetworkSpec{Name: "mynet",
		Labels: map[string]string{"team": "a"}}); err != nil {
		panic(err)
	}
	list, err := client.Networks(ctx, api.Filters{"label": {"team=a"}})
	if err != nil {
		panic(err)
	}
	for _, n := range list {
		fmt.Println(n.Name, n.Driver, n.IPAM.Config[0].Subnet)
	}
	_, err = client.NetworkCreate(ctx, network.NetworkSpec{Name: "mynet"})
	var refused *api.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Status, refused, errdefs.IsConflict(err))
	}
	fmt.Println(client.NetworkRemove(ctx, "mynet"))
	_, err = client.Network(ctx, "mynet")
	fmt.Println(errdefs.IsNotFound(err), err)
	// Output:
	// mynet bridge 172.18.0.0/16
	// 409 network with name mynet already exists true
	// <nil>
	// true network mynet not found
}

// Without a daemon the error says what to do.
func ExampleErrNoDaemon() {
	err := api.NewClient("/no/sock").Ping(context.Background())
	fmt.Println(errors.Is(err, api.ErrNoDaemon))
	fmt.Println(err)
	// Output:
	// true
	// no usernet daemon answers at /no/sock (there is no socket): start one with `usernet serve`
}
