package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/usernet/usernet/confine"
	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/forwarder"
)

// serveOptions are what the daemon is told at its start.
type serveOptions struct {
	socket, state, level, format    string
	idle                            time.Duration
	dns, dnsDomains, dnsSearch      []string
	dnsCache                        int
	dnsQuestions                    int
	confine                         []string
	ipv6                            bool
	noInbound, noOutbound, takeover bool
	perContainer, total             forwarder.Limits
	peerTimeout, busyPoll           time.Duration
	cluster                         clusterOptions
	flannel                         flannelOptions
	metrics                         metricsOptions
	bgp                             bgpOptions
	configFile                      string

	// Of the configuration's file.
	networkOptions map[string]string
	networks       []networkFlags
}

// flags defines all flags.
func (o *serveOptions) flags(c *cobra.Command) *pflag.FlagSet {
	o.add(c.Flags())
	o.addLimits(c.Flags())
	o.cluster.flags(c)
	o.flannel.flags(c.Flags())
	o.metrics.add(c.Flags())
	o.bgp.flags(c)
	return c.Flags()
}

// add defines the flags but those of limits and of a cluster.
func (o *serveOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.configFile, "config", "", "configuration to read ($XDG_CONFIG_HOME/usernet/config.toml)")
	f.StringVar(&o.socket, "socket", "", "where the API listens ($XDG_RUNTIME_DIR/usernet/usernet.sock)")
	f.StringVar(&o.state, "state-dir", "", "where the state is kept ($XDG_STATE_HOME/usernet)")
	f.StringVar(&o.level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.format, "log-format", "text", "text or json")
	f.StringSliceVar(
		&o.dns,
		"dns",
		nil,
		"resolvers to forward to instead of the host's: ADDRESS[:PORT], or tls://ADDRESS[:PORT][#NAME]",
	)
	f.StringArrayVar(
		&o.dnsDomains,
		"dns-domain",
		nil,
		"resolvers of the names in a domain: DOMAIN=SERVER[,SERVER...] (repeatable)",
	)
	f.StringSliceVar(&o.dnsSearch, "dns-search", nil, "search domains instead of the host's")
	f.IntVar(&o.dnsCache, "dns-cache", 4096, "how many answers from outside are kept; 0: none")
	countBetween(f, "dns-cache", 0, 1<<20, "0: none")
	f.IntVar(
		&o.dnsQuestions,
		"dns-questions",
		dns.DefaultQuestions,
		"how many names one container may have looked up outside at a time",
	)
	countBetween(f, "dns-questions", 0, 1<<16, fmt.Sprintf("0: %d", dns.DefaultQuestions))
	f.BoolVar(&o.ipv6, "ipv6", false, "give new networks IPv6 unless they say otherwise")
	f.BoolVar(
		&o.noInbound,
		"no-bypass-inbound",
		false,
		"carry connections to published ports through the gateways and TAPs always",
	)
	f.BoolVar(
		&o.noOutbound,
		"no-bypass-outbound",
		false,
		"carry TCP connections that containers open through the gateways and TAPs always",
	)
	f.DurationVar(
		&o.peerTimeout,
		"peer-timeout",
		forwarder.DefaultPeerTimeout,
		"how long a TCP connection may wait for a peer outside that is gone; 0: hours, as the kernel has it",
	)
	timeBetween(f, "peer-timeout", time.Second, 18*time.Hour, "hours, as the kernel has it")
	f.DurationVar(
		&o.busyPoll,
		"busy-poll",
		0,
		"look this long for the next piece of a connection before the processor may sleep, such as 100us; 0: not at all",
	)
	timeBetween(f, "busy-poll", time.Microsecond, 10*time.Millisecond, "not at all")
	f.StringSliceVar(
		&o.confine,
		"confine",
		confine.Names(confine.All),
		"what the daemon gives up once it listens; off: nothing",
	)
	f.BoolVar(
		&o.takeover,
		"takeover",
		false,
		"take the place of the daemon that runs: connections go on, and no published port refuses one",
	)
	f.DurationVar(&o.idle, "exit-when-idle", 0, "end after this long without a container")
	timeBetween(f, "exit-when-idle", time.Millisecond, aYear, "never")
	_ = f.MarkHidden("exit-when-idle")
}

// addLimits defines the flags of what may exist at once.
func (o *serveOptions) addLimits(f *pflag.FlagSet) {
	for _, l := range []struct {
		name, of string
		set      *forwarder.Limits
		def      forwarder.Limits
	}{
		{"limit", "each container", &o.perContainer, forwarder.DefaultLimits},
		{"total", "all containers together (0: no limit)", &o.total, forwarder.Limits{Memory: aQuarter}},
	} {
		f.IntVar(&l.set.TCP, l.name+"-tcp", l.def.TCP, "TCP connections of "+l.of)
		f.IntVar(&l.set.Dialling, l.name+"-dials", l.def.Dialling, "TCP connections being set up of "+l.of)
		f.IntVar(&l.set.UDP, l.name+"-udp", l.def.UDP, "UDP associations of "+l.of)
		f.IntVar(&l.set.Clients, l.name+"-udp-clients", l.def.Clients, "clients of the published UDP ports of "+l.of)
		f.IntVar(&l.set.Echo, l.name+"-pings", l.def.Echo, "ping sessions of "+l.of)
		for _, kind := range []string{"tcp", "dials", "udp", "udp-clients", "pings"} {
			countBetween(f, l.name+"-"+kind, 0, mostLimit, "0: no limit")
		}
		l.set.Memory = l.def.Memory
		f.Var(
			byteSize{&l.set.Memory},
			l.name+"-memory",
			"memory for buffers of connections through the gateways, of "+l.of,
		)
		sizeBetween(f, l.name+"-memory", 0, mostBytes, "0: no limit")
	}
}
