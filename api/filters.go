package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/network"
)

// filters are those of a list request: any value of a key may match, and each key has to.
type filters map[string][]string

// readFilters reads ?filters= in both of Docker's forms, {"name":["x"]} and {"name":{"x":true}}.
func readFilters(r *http.Request) (filters, error) {
	text := r.URL.Query().Get("filters")
	if text == "" {
		return nil, nil
	}
	f := filters{}
	var old map[string]map[string]bool
	if json.Unmarshal([]byte(text), &old) == nil {
		for k, m := range old {
			for v := range m {
				f[k] = append(f[k], v)
			}
		}
	} else if err := json.Unmarshal([]byte(text), (*map[string][]string)(&f)); err != nil {
		return nil, errdefs.Invalid("invalid filters: %w", err)
	}
	return f, nil
}

// checkFilters lets requests pass to next whose filters are among known.
func checkFilters(known []string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f, err := readFilters(r)
		for k := range f {
			if !slices.Contains(known, k) {
				err = errdefs.Invalid("invalid filter '%s'", k)
			}
		}
		if err != nil {
			fail(w, err)
			return
		}
		next(w, r)
	}
}

// checkNetworks refuses values that no network could match, with Docker's texts.
func (f filters) checkNetworks() error {
	if len(f["dangling"]) > 1 {
		return errdefs.Invalid("got more than one value for filter key \"dangling\"")
	}
	for _, v := range f["dangling"] {
		if !slices.Contains([]string{"true", "1", "false", "0"}, v) {
			return errdefs.Invalid(`invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")`)
		}
	}
	for _, v := range f["type"] {
		if v != "builtin" && v != "custom" {
			return errdefs.Invalid("invalid filter: 'type'='%s'", v)
		}
	}
	return nil
}

// containerStates are Docker's; usernet knows the three of network.Status.
var containerStates = []string{"created", "running", "paused", "restarting", "removing", "exited", "dead"}

// checkContainers refuses values that no container could match.
func (f filters) checkContainers() error {
	oneOf := func(list ...string) func(string) bool {
		return func(v string) bool { return slices.Contains(list, v) }
	}
	for key, is := range map[string]func(string) bool{
		"status":  oneOf(containerStates...),
		"health":  oneOf("none", "starting", "healthy", "unhealthy"),
		"is-task": oneOf("true", "1", "false", "0"),
		"exited":  func(v string) bool { _, err := strconv.Atoi(v); return err == nil },
		"publish": func(v string) bool { _, ok := parsePortFilter(v); return ok },
		"expose":  func(v string) bool { _, ok := parsePortFilter(v); return ok },
	} {
		for _, v := range f[key] {
			if !is(v) {
				return errdefs.Invalid("invalid filter '%s=%s'", key, v)
			}
		}
	}
	return nil
}

// any says whether a value of key satisfies match, or there is none.
func (f filters) any(key string, match func(string) bool) bool {
	return len(f[key]) == 0 || slices.ContainsFunc(f[key], match)
}

func (f filters) matchLabels(labels map[string]string) bool {
	has := func(want string) bool {
		k, v, valued := strings.Cut(want, "=")
		got, ok := labels[k]
		return ok && (!valued || got == v)
	}
	for _, want := range f["label"] {
		if !has(want) {
			return false
		}
	}
	return !slices.ContainsFunc(f["label!"], has)
}

func (f filters) matchNetwork(n *network.Network, containers []*network.Container) bool {
	predefined := n.Predefined()
	return f.any("name", matches(n.Name)) && f.any("id", matches(n.ID)) &&
		f.any("driver", func(v string) bool { return shownDriver(n) == v }) &&
		f.any("scope", func(v string) bool { return string(n.Scope) == v }) &&
		f.any("type", func(v string) bool { return v == "builtin" && predefined || v == "custom" && !predefined }) &&
		f.any("dangling", func(v string) bool {
			want, _ := strconv.ParseBool(v) // checkNetworks has seen it
			return want == (!predefined && !n.InUse(containers))
		}) && f.matchLabels(n.Labels)
}

func (f filters) matchContainer(c *network.Container) bool {
	return (f.any("name", matches(c.Name)) || f.any("name", matches("/"+c.Name))) &&
		f.any("id", func(v string) bool { return strings.HasPrefix(c.ID, v) }) &&
		f.any("status", func(v string) bool { return string(c.Status) == v }) &&
		f.any("ancestor", never) && f.any("volume", never) && f.any("isolation", never) &&
		f.any("is-task", func(v string) bool { return v == "false" || v == "0" }) &&
		f.any("exited", func(v string) bool { return c.Status == network.Exited && fmt.Sprint(c.ExitCode) == v }) &&
		f.any("network", func(v string) bool {
			return slices.ContainsFunc(c.Endpoints, func(e *network.Endpoint) bool {
				return e.Network == v || strings.HasPrefix(e.NetworkID, v)
			})
		}) &&
		f.any("expose", func(v string) bool { return slices.ContainsFunc(c.Exposed, portIs(v)) }) &&
		f.any("publish", func(v string) bool {
			return slices.ContainsFunc(c.Ports, func(b network.PortBinding) bool {
				return portIs(v)(network.PortProto{Port: b.Port, Proto: b.Proto})
			})
		}) && f.matchLabels(c.Labels)
}

// matchHealth compares what a health check says; nil is none.
func (f filters) matchHealth(h *network.Health) bool {
	status := "none"
	if h != nil {
		status = string(h.Status)
	}
	return f.any("health", func(v string) bool { return v == status })
}

// matches takes a filter's value as a regular expression, as Docker does for names and ids.
func matches(s string) func(string) bool {
	return func(v string) bool {
		ok, err := regexp.MatchString(v, s)
		return err == nil && ok
	}
}

// never is for filters about what a container can have in Docker and none has here, such as an image.
func never(string) bool { return false }

// age applies the filters before and since, which name containers of the list.
func (f filters) age(
	list []*network.Container, find func(string) (*network.Container, error),
) ([]*network.Container, error) {
	for _, key := range []string{"before", "since"} {
		for _, ref := range f[key] {
			mark, err := find(ref)
			if err != nil {
				return nil, err
			}
			list = slices.DeleteFunc(list, func(c *network.Container) bool {
				if key == "before" {
					return !c.Created.Before(mark.Created)
				}
				return !c.Created.After(mark.Created)
			})
		}
	}
	return list, nil
}

// portRange is a value of the filters publish and expose: PORT[-PORT][/PROTO], TCP unless it says otherwise.
type portRange struct {
	first, last uint64
	proto       network.Protocol
}

func parsePortFilter(v string) (p portRange, ok bool) {
	ports, proto, given := strings.Cut(v, "/")
	p.proto = network.Protocol(strings.ToLower(proto))
	if !given {
		p.proto = network.TCP
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	var err1, err2 error
	p.first, err1 = strconv.ParseUint(first, 10, 16)
	p.last, err2 = strconv.ParseUint(last, 10, 16)
	known := p.proto == network.TCP || p.proto == network.UDP || p.proto == network.SCTP
	return p, err1 == nil && err2 == nil && p.first <= p.last && known
}

// portIs matches ports against a value of the filters publish and expose.
func portIs(v string) func(network.PortProto) bool {
	p, ok := parsePortFilter(v)
	return func(x network.PortProto) bool {
		return ok && x.Proto == p.proto && uint64(x.Port) >= p.first && uint64(x.Port) <= p.last
	}
}

func (f filters) matchEvent(e Event) bool {
	actor := func(kind string) func(string) bool {
		return func(v string) bool {
			if e.Type == kind && (strings.HasPrefix(e.ID, v) || e.Attributes["name"] == v) {
				return true
			}
			other := e.Attributes[kind] // of the one that the actor was connected with
			return other != "" && strings.HasPrefix(other, v)
		}
	}
	for _, k := range []string{"config", "daemon", "image", "node", "plugin", "secret", "service", "volume"} {
		if len(f[k]) > 0 {
			return false // events of what is not here
		}
	}
	return f.any("type", func(v string) bool { return e.Type == v }) &&
		f.any("event", func(v string) bool {
			// health_status, exec_create and exec_start have more behind a colon, which a filter need not name.
			return e.Action == v || strings.HasPrefix(e.Action, v+": ")
		}) &&
		f.any("container", actor("container")) && f.any("network", actor("network")) &&
		f.any("scope", func(v string) bool { return v == "local" }) && f.matchLabels(e.Attributes)
}

// until is the time of an until filter: what is younger stays.
func (f filters) until() (time.Time, error) {
	switch len(f["until"]) {
	case 0:
		return time.Time{}, nil
	case 1:
	default:
		return time.Time{}, errdefs.Invalid("more than one until filter specified")
	}
	return parseTime(f["until"][0])
}

// timeForms are those of Docker's --since and --until beside a number of seconds, the ones without a zone in local
// time.
var timeForms = []string{
	time.RFC3339Nano,
	"2006-01-02T15:04:05.999999999",
	"2006-01-02T15:04",
	"2006-01-02T15",
	"2006-01-02Z07:00",
	"2006-01-02",
}

// parseTime reads seconds since 1970, with a fraction or not, a date, or a duration back from now; "" is the zero time.
func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && strings.ContainsAny(s, "hmsuµn") {
		return time.Now().Add(-d), nil
	}
	sec, frac, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	ns, err2 := strconv.ParseUint((frac + "000000000")[:9], 10, 64)
	if err == nil && err2 == nil {
		return time.Unix(n, int64(ns)), nil
	}
	for _, form := range timeForms {
		if t, err := time.ParseInLocation(form, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errdefs.Invalid(
		"invalid time %q: give seconds since 1970, a date such as 2006-01-02T15:04:05, or how long ago, such as 10m", s)
}

// ParseTime reads a time as --since and --until take it: seconds since 1970, a date, or a duration back from now; ""
// is the zero time.
func ParseTime(s string) (time.Time, error) { return parseTime(s) }
