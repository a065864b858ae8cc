package api

import (
	"context"
	"net/http"
	"net/url"
	stdpath "path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/usernet/usernet/internal/errdefs"
)

// Versions of Docker's API that are spoken: from the oldest that dockerd still had in 2025 to that of the type module.
const (
	APIVersion    = "1.56"
	MinAPIVersion = "1.24"
)

var versioned = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^/v(\d+\.\d+)(/.*)$`)
})

// withoutVersion takes the /v1.NN off a path, and says which versions there are. A path with empty or dot segments is
// redirected to the clean one, version and query included.
func withoutVersion(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Api-Version", APIVersion)
		h.Set("Ostype", "linux")
		h.Set("Docker-Experimental", "false")
		h.Set("Server", "usernet (linux)")
		escaped := r.URL.EscapedPath()
		if clean := cleanPath(escaped); clean != escaped {
			if r.URL.RawQuery != "" {
				clean += "?" + r.URL.RawQuery
			}
			h.Set("Location", clean)
			w.WriteHeader(http.StatusMovedPermanently)
			return
		}
		if m := versioned().FindStringSubmatch(escaped); m != nil {
			if err := checkVersion(m[1]); err != nil {
				fail(w, err)
				return
			}
			plain, err := url.PathUnescape(m[2])
			if err != nil {
				fail(w, errdefs.Invalid("invalid path: %w", err))
				return
			}
			r = r.WithContext(context.WithValue(r.Context(), versionKey{}, m[1]))
			r.URL.Path, r.URL.RawPath = plain, m[2]
		}
		next.ServeHTTP(w, r)
	})
}

// cleanPath is p without empty and dot segments. A final slash stays.
func cleanPath(p string) string {
	clean := stdpath.Clean("/" + p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

func checkVersion(v string) error {
	switch {
	case older(v, MinAPIVersion):
		return errdefs.Invalid("client version %s is too old. Minimum supported API version is %s, "+
			"please upgrade your client to a newer version", v, MinAPIVersion)
	case older(APIVersion, v):
		return errdefs.Invalid("client version %s is too new. Maximum supported API version is %s", v, APIVersion)
	}
	return nil
}

type versionKey struct{}

// before says whether r asks for an API older than version; without a version it asks for the newest.
func before(r *http.Request, version string) bool {
	v, ok := r.Context().Value(versionKey{}).(string)
	return ok && older(v, version)
}

// older compares versions such as 1.9 and 1.24.
func older(a, b string) bool {
	return slices.Compare(numbers(a), numbers(b)) < 0
}

func numbers(v string) []int {
	var list []int
	for _, s := range strings.Split(v, ".") {
		n, _ := strconv.Atoi(s) // versioned matches digits only; a number beyond int is the greatest
		list = append(list, n)
	}
	return list
}
