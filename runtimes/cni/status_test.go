package cni

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
)

// askedDaemon is a daemon that is asked whether it is there, and for one network.
type askedDaemon struct {
	daemon
	ping    func(context.Context) error
	network error
}

func (d askedDaemon) Ping(ctx context.Context) error { return d.ping(ctx) }

func (d askedDaemon) Network(context.Context, string) (n dockernet.Inspect, err error) {
	n.Name = "net1"
	return n, d.network
}

func TestStatus(t *testing.T) {
	is := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	for _, test := range []struct {
		name, keys string
		d          askedDaemon
		code       uint
		words      string
		after      time.Duration
	}{
		{name: "works", d: askedDaemon{ping: is(nil)}},
		{name: "a network that will be made", d: askedDaemon{ping: is(nil), network: errdefs.NotFound("none")}},
		{name: "no daemon", d: askedDaemon{ping: is(api.ErrNoDaemon)}, code: types.ErrLimitedConnectivity,
			words: "no usernet daemon"},
		{name: "a daemon that hangs", d: askedDaemon{ping: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}, code: types.ErrLimitedConnectivity, words: "has not answered for 5s", after: 5 * time.Second},
		{name: "a network that may not be made", keys: `, "create": false`, code: types.ErrPluginNotAvailable,
			d: askedDaemon{ping: is(nil), network: errdefs.NotFound("none")}, words: "usernet network create net1"},
		{name: "another network", keys: `, "subnet": "10.1.2.0/24"`, code: types.ErrPluginNotAvailable,
			d: askedDaemon{ping: is(nil)}, words: "none of its subnets"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := plugin{open: func(string, func(string) string) (daemon, error) { return test.d, nil }}
				since := time.Now()
				err := p.status(&skel.CmdArgs{StdinData: []byte(
					`{"cniVersion": "1.1.0", "name": "net1", "type": "usernet-cni"` + test.keys + `}`)})
				if took := time.Since(since); took != test.after {
					t.Errorf("after %v, want %v", took, test.after)
				}
				var e *types.Error
				switch {
				case test.code == 0 && err == nil:
				case !errors.As(err, &e) || e.Code != test.code || !strings.Contains(err.Error(), test.words):
					t.Errorf("%v, want code %d and %q", err, test.code, test.words)
				}
			})
		})
	}
}
