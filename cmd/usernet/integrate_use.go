package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// useLimit bounds the question who uses an integration: --undo works without an answer.
const useLimit = 5 * time.Second

// warnOfUse says what becomes of containers that use an integration which is about to be removed. It is a warning: they
// may be what is to be got rid of.
func (i integration) warnOfUse(ctx context.Context, w io.Writer, daemon func() (*api.Client, error)) {
	if i.undone == "" || !i.anyInPlace() {
		return
	}
	if i.keys == "" {
		fmt.Fprintln(w, "usernet:", i.undone)
		return
	}
	list, err := i.users(ctx, daemon)
	switch {
	case errors.Is(err, api.ErrNoDaemon):
		return // containers of a daemon that has ended have no network that they could lose
	case err != nil:
		fmt.Fprintf(w, "usernet: warning: containers that run may be attached by this integration: %v\n", err)
		return
	case len(list) == 0:
		return
	}
	fmt.Fprintf(w, "usernet: warning: these containers run, and %s:\n", i.undone)
	for _, line := range list {
		fmt.Fprintln(w, " ", line)
	}
	fmt.Fprintln(w, "`usernet detach NAME` takes one off its networks.")
}

// anyInPlace says whether a file or a link of the integration is there.
func (i integration) anyInPlace() bool {
	for _, path := range append(slices.Sorted(maps.Keys(i.files)), slices.Sorted(maps.Keys(i.links))...) {
		if _, err := os.Lstat(path); err == nil {
			return true
		}
	}
	return false
}

// users are the containers that the integration's plugin has attached, with what they have.
func (i integration) users(ctx context.Context, daemon func() (*api.Client, error)) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, useLimit)
	defer cancel()
	d, err := daemon()
	if err != nil {
		return nil, err
	}
	have, err := d.Attachments(ctx, i.keys)
	if err != nil {
		return nil, err
	}
	return endpointLines(have, i.keys), nil
}

// endpointLines are the endpoints whose keys begin with prefix, one in a line.
func endpointLines(list []network.Container, prefix string) (lines []string) {
	for _, c := range list {
		for _, e := range c.Endpoints {
			if !strings.HasPrefix(e.Key, prefix) {
				continue
			}
			line := c.Name + ": " + e.Network
			for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
				if p.IsValid() {
					line += ", " + p.Addr().String()
				}
			}
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}
