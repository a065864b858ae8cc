package network

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// ifacePrefix leaves room for three digits: an interface's name has 15 bytes at most (IFNAMSIZ in linux/if.h).
var ifacePrefix = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,10}[a-zA-Z_-]$|^[a-zA-Z]$`)

func checkNetworkName(name string) error {
	if !nameForm.MatchString(name) {
		return Errorf(Invalid, "invalid network name %q: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

func checkContainerName(name string) error {
	if len(name) < 2 || !nameForm.MatchString(name) {
		return Errorf(Invalid, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

func isPredefined(name string) bool {
	return name == BridgeName || name == HostName || name == NoneName || name == "default"
}

// checkOptions refuses values that the daemon could not act on.
func checkOptions(options map[string]string) error {
	for k, v := range options {
		switch {
		case k == "com.docker.network.driver.mtu":
			if n, err := strconv.Atoi(v); err != nil || n < 68 || n > 65520 {
				return Errorf(Invalid, "invalid MTU %q: give a number from 68 (1280 with IPv6) to 65520", v)
			}
		case strings.HasPrefix(k, "com.docker.network.bridge.enable_"), k == "usernet.direct_ports", k == "usernet.fast_path", k == "usernet.host_loopback":
			if _, err := strconv.ParseBool(v); err != nil {
				return Errorf(Invalid, "invalid value %q for %s: give true or false", v, k)
			}
		case k == "usernet.outbound_addr", k == "usernet.outbound_addr6":
			if a, err := netip.ParseAddr(v); err != nil || a.Is4() != (k == "usernet.outbound_addr") {
				return Errorf(Invalid, "invalid value %q for %s: give one of the host's own addresses of that family", v, k)
			}
		case k == "com.docker.network.bridge.host_binding_ipv4":
			if a, err := netip.ParseAddr(v); err != nil || !a.Is4() {
				return Errorf(Invalid, "invalid value %q for %s: give an IPv4 address of the host", v, k)
			}
		case k == "com.docker.network.container_iface_prefix":
			if !ifacePrefix.MatchString(v) {
				return Errorf(Invalid, "invalid value %q for %s: give up to 12 letters, digits, - or _ that do not end in a digit", v, k)
			}
		case strings.HasPrefix(k, "usernet.") && !slices.Contains([]string{"usernet.host_loopback", "usernet.outbound_addr", "usernet.outbound_addr6", "usernet.outbound_interface", "usernet.direct_ports", "usernet.fast_path", "usernet.dns", "usernet.egress", "usernet.allow_egress"}, k):
			return Errorf(Invalid, "unknown option %s", k)
		}
	}
	return nil
}

// DNSNames are the names under which an endpoint is found on its network: the container's name, its short id, its
// hostname where one was set, and its aliases.
func DNSNames(c *Container, e *Endpoint) []string {
	names := []string{c.Name}
	add := func(n string) {
		if n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	add(c.ID[:12])
	add(c.Hostname)
	for _, a := range e.Aliases {
		add(a)
	}
	return names
}

// DefaultRouteEndpoint chooses the endpoints that have the default routes: for each family, of the networks that lead
// outside, the one with the highest gateway priority, then the first by name.
func DefaultRouteEndpoint(c *Container, net func(id string) *Network) (v4, v6 *Endpoint) {
	better := func(e, than *Endpoint) bool {
		return than == nil || e.GwPriority > than.GwPriority || e.GwPriority == than.GwPriority && e.Network < than.Network
	}
	for _, e := range c.Endpoints {
		if n := net(e.NetworkID); n == nil || n.Internal || n.Driver != DriverBridge {
			continue
		}
		if e.IPv4.IsValid() && better(e, v4) {
			v4 = e
		}
		if e.IPv6.IsValid() && better(e, v6) {
			v6 = e
		}
	}
	return v4, v6
}

var adjectives = strings.Fields("agile amber bold brave bright calm clever cosmic crisp curious dapper eager fleet gentle golden happy jolly keen lively lucid merry mellow nimble noble patient quick quiet sharp silent steady sunny swift tidy vivid warm witty")
var surnames = strings.Fields("allman baran bell boggs borg cerf clark crocker davies deering diffie engelbart estrin farber floyd hamilton hopper jacobson kahn kleinrock knuth lamport liskov lovelace metcalfe mockapetris moy perlman pouzin postel ritchie roberts shannon thacker thompson turing varghese wilkes")

// drawName is a name that nobody has, in Docker's manner.
func drawName(taken func(string) bool) string {
	for try := 0; ; try++ {
		name := adjectives[rand.IntN(len(adjectives))] + "_" + surnames[rand.IntN(len(surnames))]
		if try > 5 {
			name += fmt.Sprint(rand.IntN(10000))
		}
		if !taken(name) {
			return name
		}
	}
}
