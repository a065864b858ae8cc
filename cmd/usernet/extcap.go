package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/observe/capture"
	"github.com/usernet/usernet/observe/capture/filter"
)

// extcapCommand answers Wireshark, which calls it for each of its questions
// (https://www.wireshark.org/docs/wsdg_html_chunked/ChCaptureExtcap.html).
func extcapCommand() *cobra.Command {
	var e extcap
	c := &cobra.Command{
		Use:    "extcap",
		Short:  "Answer Wireshark as a source of packets",
		Hidden: true,
		Args:   cobra.MaximumNArgs(1), // a filter, behind --extcap-capture-filter as an argument of its own
		RunE:   func(c *cobra.Command, _ []string) error { return e.run(c.Context(), os.Stdout) },
	}
	f := c.Flags()
	f.BoolVar(&e.interfaces, "extcap-interfaces", false, "list the interfaces")
	f.BoolVar(&e.types, "extcap-dlts", false, "list the link types of an interface")
	f.BoolVar(&e.config, "extcap-config", false, "list the options of an interface")
	f.StringVar(&e.version, "extcap-version", "", "the version of Wireshark")
	f.StringVar(&e.of, "extcap-interface", "", "the interface")
	f.StringVar(&e.filter, "extcap-capture-filter", "", "the filter of packets")
	f.BoolVar(&e.capture, "capture", false, "capture packets")
	f.StringVar(&e.fifo, "fifo", "", "where they are written")
	f.IntVar(&e.snaplen, "snaplen", 0, "bytes that are kept of each packet")
	countBetween(f, "snaplen", 0, maxSnaplen, "0: all of each packet")
	c.FParseErrWhitelist.UnknownFlags = true // of later versions
	return c
}

// extcap is one of Wireshark's questions.
type extcap struct {
	interfaces, types, config, capture bool
	version, of, filter, fifo          string
	snaplen                            int
}

// Interfaces of Wireshark's by what they begin with; the rest is a name.
const (
	extcapAll       = "usernet"
	extcapContainer = "usernet-container-"
	extcapNetwork   = "usernet-network-"
)

func (e *extcap) run(ctx context.Context, w io.Writer) error {
	switch {
	case e.interfaces:
		return listExtcap(ctx, w)
	case e.types:
		fmt.Fprintln(w, "dlt {number=1}{name=EN10MB}{display=Ethernet}")
	case e.config:
		fmt.Fprintln(w, "arg {number=0}{call=--snaplen}{display=Bytes of each packet}{type=unsigned}{default=0}"+
			"{tooltip=0 keeps all of them}")
	case e.capture:
		cl, err := client()
		if err != nil {
			return err
		}
		q := api.CaptureRequest{Filter: e.filter, Snaplen: e.snaplen}
		if name, ok := strings.CutPrefix(e.of, extcapContainer); ok {
			q.Container = name
		} else if name, ok := strings.CutPrefix(e.of, extcapNetwork); ok {
			q.Network = name
		}
		return record(ctx, cl, q, capture.Output{Path: e.fifo}, 0, false)
	case e.filter != "":
		// Wireshark shows what is printed as the filter's error. Names of containers are known to the daemon only.
		if _, err := filter.Parse(e.filter, filter.Options{Lookup: anyHost}); err != nil {
			fmt.Fprintln(w, err)
		}
	}
	return nil
}

// listExtcap lists the interfaces. Without a daemon there are none, which is no error: Wireshark asks at each start.
func listExtcap(ctx context.Context, w io.Writer) error {
	fmt.Fprintf(w, "extcap {version=%s}{help=https://github.com/usernet/usernet}\n", version)
	ctx, cancel := context.WithTimeout(ctx, completeWait)
	defer cancel()
	cl, err := client()
	if err != nil {
		return nil
	}
	list, err := cl.Containers(ctx, api.ContainerList{})
	if err != nil {
		return nil
	}
	nets, err := cl.Networks(ctx, nil)
	if err != nil {
		return nil
	}
	fmt.Fprintf(w, "interface {value=%s}{display=usernet: all containers}\n", extcapAll)
	for _, n := range nets {
		if driver, known := network.DriverOf(n.Driver); known && !driver.Interfaces {
			continue // nothing to capture
		}
		fmt.Fprintf(w, "interface {value=%s%s}{display=usernet: network %s}\n", extcapNetwork, n.Name, n.Name)
	}
	for _, c := range list {
		for _, name := range c.Names {
			name = strings.TrimPrefix(name, "/")
			fmt.Fprintf(w, "interface {value=%s%s}{display=usernet: container %s}\n", extcapContainer, name, name)
		}
	}
	return nil
}

// anyHost takes each name for one of a host.
func anyHost(string) []netip.Addr { return []netip.Addr{netip.IPv4Unspecified()} }
