package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

// Codes of the plugin's own, which the specification leaves to plugins from 100 on (section 5, "Error"). They do not
// change: callers decide by them.
const (
	// CodeTaken: an address, a MAC address, a name, an interface or a published port that was asked for is another's,
	// or is not to be had on that network. Asking for another one, or for none, helps.
	CodeTaken uint = 100
	// CodePort: the host refuses a published port, as one below net.ipv4.ip_unprivileged_port_start.
	CodePort uint = 101
)

// coded gives an error of the daemon's CNI's code: whether trying again helps, or else what is to be changed.
func coded(err error) error {
	var e *types.Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return types.NewError(codeOf(err), err.Error(), "")
}

// codeOf is the code of an error of the daemon's.
func codeOf(err error) uint {
	for _, later := range []error{api.ErrNoDaemon, api.ErrDaemonEnded, api.ErrDaemonSilent, context.DeadlineExceeded} {
		if errors.Is(err, later) {
			return types.ErrTryAgainLater
		}
	}
	switch errdefs.TopicOf(err) {
	case errdefs.TopicPortTaken:
		return CodeTaken
	case errdefs.TopicPortLow, errdefs.TopicPortBind:
		return CodePort
	}
	switch errdefs.Class(err) {
	case errdefs.ErrUnavailable:
		return types.ErrTryAgainLater
	case errdefs.ErrInvalid, errdefs.ErrNotFound:
		return types.ErrInvalidNetworkConfig
	case errdefs.ErrNotImplemented:
		return types.ErrUnsupportedField
	case errdefs.ErrConflict, errdefs.ErrForbidden:
		return CodeTaken
	}
	return types.ErrInternal
}

// asked puts what was asked for in front of an error of the daemon's, whose own words name no address.
func asked(spec network.ContainerSpec, err error) error {
	e := spec.Networks[0]
	var addrs []string
	for _, a := range []netip.Addr{e.IPv4, e.IPv6} {
		if a.IsValid() {
			addrs = append(addrs, a.String())
		}
	}
	if len(addrs) == 0 {
		return fmt.Errorf("network %s: %w", e.Network, err)
	}
	return fmt.Errorf("network %s, address %s: %w", e.Network, strings.Join(addrs, " and "), err)
}
