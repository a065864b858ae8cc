package network

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/usernet/usernet/internal/errdefs"
)

var nameForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
})

// maxNetworkName bounds a network's name, in bytes: it is a part of containers' names in DNS (RFC 1035, 2.3.4) and of
// log lines.
const maxNetworkName = 255

// checkNetworkName accepts what Docker accepts, apart from control characters, which a terminal could obey, and from
// names without end.
func checkNetworkName(name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return errdefs.Invalid("invalid name: name is empty")
	case len(name) > maxNetworkName:
		return errdefs.Invalid("invalid network name: it has %d bytes, and %d are possible", len(name), maxNetworkName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return errdefs.Invalid("invalid network name %q: it has control characters", name)
	}
	return nil
}

func checkContainerName(name string) error {
	if len(name) == 1 && nameForm().MatchString(name) {
		return errdefs.Invalid("Invalid container name (%s), it needs two characters at least", name)
	}
	if !nameForm().MatchString(name) {
		return errdefs.Invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

func isPredefined(name string) bool {
	return name == BridgeName || name == HostName || name == NoneName || name == "default"
}

// Predefined says whether n is one of the networks that always exist.
func (n *Network) Predefined() bool { return isPredefined(n.Name) }

// InUse says whether one of containers that has not ended is on n.
func (n *Network) InUse(containers []*Container) bool {
	return slices.ContainsFunc(containers, func(c *Container) bool {
		return c.Status != Exited &&
			slices.ContainsFunc(c.Endpoints, func(e *Endpoint) bool { return e.NetworkID == n.ID })
	})
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
		return than == nil || e.GwPriority > than.GwPriority ||
			e.GwPriority == than.GwPriority && e.Network < than.Network
	}
	for _, e := range c.Endpoints {
		if n := net(e.NetworkID); n == nil || n.Internal || !n.HasInterfaces() {
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

// What names are drawn from. They are cut into words when the first name is drawn, not at every start of the program.
var (
	adjectives = sync.OnceValue(func() []string {
		return strings.Fields("agile amber bold brave bright calm clever cosmic crisp curious dapper eager fleet gentle " +
			"golden happy jolly keen lively lucid merry mellow nimble noble patient quick quiet sharp silent steady sunny swift tidy " +
			"vivid warm witty")
	})
	surnames = sync.OnceValue(func() []string {
		return strings.Fields("allman baran bell boggs borg cerf clark crocker davies deering diffie engelbart estrin " +
			"farber floyd hamilton hopper jacobson kahn kleinrock knuth lamport liskov lovelace metcalfe mockapetris moy perlman " +
			"pouzin postel ritchie roberts shannon thacker thompson turing varghese wilkes")
	})
)

// drawName is a name that nobody has, in Docker's manner.
func drawName(taken func(string) bool) string {
	adjectives, surnames := adjectives(), surnames()
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
