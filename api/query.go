package api

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

// parameter is one that a request's query may have. A request with another one is refused, and so is a value that is
// not of the parameter's kind.
type parameter struct {
	name     string
	kind     string // string, integer, boolean; of Docker's requests also filters, time
	text     string // for docs/openapi.yaml
	required bool
}

// checkQuery lets requests pass to next whose query has nothing but params, each at most once and with a value of its
// kind.
func checkQuery(params []parameter, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			fail(w, errdefs.Invalid("invalid query: %w", err))
			return
		}
		for name, values := range q {
			i := slices.IndexFunc(params, func(p parameter) bool { return p.name == name })
			switch {
			case i < 0:
				err = errdefs.Invalid("unknown parameter %q of %s %s", name, r.Method, r.URL.Path)
			case len(values) > 1:
				err = errdefs.Invalid("parameter %s is given %d times", name, len(values))
			default:
				err = params[i].check(values[0])
			}
			if err != nil {
				fail(w, err)
				return
			}
		}
		for _, p := range params {
			if p.required && q.Get(p.name) == "" {
				fail(w, errdefs.Invalid("parameter %s is missing: %s", p.name, p.text))
				return
			}
		}
		next(w, r)
	}
}

// check refuses a value that is not of p's kind. Filters and times are checked where they are read.
func (p parameter) check(value string) error {
	var ok bool
	switch p.kind {
	case "integer":
		_, err := strconv.Atoi(value)
		ok = err == nil || value == ""
	case "boolean":
		_, ok = parseBool(value)
	default:
		ok = true
	}
	if !ok {
		return errdefs.Invalid("invalid value for %s: %s", p.name, value)
	}
	return nil
}

// parseBool reads what Docker's clients send for true and false.
func parseBool(s string) (value, ok bool) {
	switch strings.ToLower(s) {
	case "", "no", "none":
		return false, true
	case "yes":
		return true, true
	}
	v, err := strconv.ParseBool(s)
	return v, err == nil
}

// boolParam is a parameter that checkQuery has let pass; false where there is none.
func boolParam(r *http.Request, name string) bool {
	v, _ := parseBool(r.URL.Query().Get(name))
	return v
}

// intParam is a parameter that checkQuery has let pass; otherwise where there is none.
func intParam(r *http.Request, name string, otherwise int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(name))
	if err != nil {
		return otherwise
	}
	return n
}

// stopTimeout reads parameter t in seconds; nil where there is none. A negative one means no limit, as in Docker.
func stopTimeout(r *http.Request) *time.Duration {
	if !r.URL.Query().Has("t") {
		return nil
	}
	wait := network.StopSeconds(intParam(r, "t", 0))
	return &wait
}
