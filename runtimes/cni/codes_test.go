package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

func TestCodes(t *testing.T) {
	for _, test := range []struct {
		err  error
		want uint
	}{
		{api.ErrNoDaemon, types.ErrTryAgainLater},
		{api.ErrDaemonEnded, types.ErrTryAgainLater},
		{context.DeadlineExceeded, types.ErrTryAgainLater},
		{&api.Error{Status: 503, Msg: "a limit"}, types.ErrTryAgainLater},
		{&api.Error{Status: 400, Msg: "wrong"}, types.ErrInvalidNetworkConfig},
		{&api.Error{Status: 404, Msg: "no such container"}, types.ErrInvalidNetworkConfig},
		{&api.Error{Status: 501, Msg: "not that"}, types.ErrUnsupportedField},
		{&api.Error{Status: 403, Msg: "Address already in use"}, CodeTaken},
		{&api.Error{Status: 409, Msg: "Conflict. The container name is in use"}, CodeTaken},
		{&api.Error{Status: 500, Msg: "Bind", Topic: errdefs.TopicPortTaken}, CodeTaken},
		{&api.Error{Status: 500, Msg: "Bind", Topic: errdefs.TopicPortLow}, CodePort},
		{&api.Error{Status: 500, Msg: "Bind", Topic: errdefs.TopicPortBind}, CodePort},
		{&api.Error{Status: 500, Msg: "else"}, types.ErrInternal},
		{types.NewError(types.ErrInvalidNetNS, "known", ""), types.ErrInvalidNetNS},
	} {
		var e *types.Error
		if err := coded(fmt.Errorf("network n: %w", test.err)); !errors.As(err, &e) || e.Code != test.want ||
			!strings.Contains(err.Error(), test.err.Error()) {
			t.Errorf("%v: %v, want code %d", test.err, err, test.want)
		}
	}
	if coded(nil) != nil {
		t.Error("no error has a code")
	}
}

func TestAnErrorSaysWhichAddressItIsAbout(t *testing.T) {
	spec := network.ContainerSpec{Networks: []network.NamedEndpointSpec{{Network: "net1"}}}
	taken := errors.New("Address already in use") //nolint:staticcheck // Docker's text
	if err := asked(spec, taken); err.Error() != "network net1: Address already in use" {
		t.Error(err)
	}
	spec.Networks[0].IPv4, spec.Networks[0].IPv6 = netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd00::9")
	if err := asked(spec, taken); !errors.Is(err, taken) ||
		err.Error() != "network net1, address 10.0.0.9 and fd00::9: Address already in use" {
		t.Error(err)
	}
}
