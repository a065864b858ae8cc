package sim

import (
	"flag"
	"testing"
	"time"
)

var (
	hosts     = flag.Int("hosts", 12, "how many hosts")
	endpoints = flag.Int("endpoints", 120, "how many endpoints, on all hosts together")
	span      = flag.Duration("span", 10*time.Second, "how long bytes are counted")
	churn     = flag.Int("churn", 20, "changes in a second, on all hosts together, while churn is measured")
	limit     = flag.Duration("limit", 15*time.Minute, "how long one thing may take, by the simulation's clock")
	delay     = flag.Duration("delay", time.Millisecond, "how long a datagram is on its way")
	bandwidth = flag.Int("bandwidth", 125_000_000, "the bytes that a stream carries in a second")
)

func TestSimulation(t *testing.T) {
	Run(t, Parameters{
		Hosts: *hosts, Endpoints: *endpoints, Span: *span, Churn: *churn, Limit: *limit, Delay: *delay,
		Bandwidth: *bandwidth,
	})
}
