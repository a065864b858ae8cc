package forwarder

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/openmetrics"
)

// dialResult is what became of a connection to a destination outside.
type dialResult int

const (
	dialOK dialResult = iota
	dialRefused
	dialUnreachable
	dialTimedOut
	dialFailed // on this machine: no descriptors, no address
	dialResults
)

var dialNames = [dialResults]string{"ok", "refused", "unreachable", "timeout", "failed"}

func dialResultOf(err error) dialResult {
	switch {
	case err == nil:
		return dialOK
	case errors.Is(err, unix.ECONNREFUSED):
		return dialRefused
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return dialUnreachable
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		return dialTimedOut
	}
	return dialFailed
}

// Dials are how long destinations outside took to answer TCP connections, by result.
func (f *Forwarder) Dials() map[string]*openmetrics.Histogram {
	m := map[string]*openmetrics.Histogram{}
	for i := range f.dials {
		m[dialNames[i]] = &f.dials[i]
	}
	return m
}
