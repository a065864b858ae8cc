package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/usernet/usernet/internal/errdefs"
)

// dockerRoute is one request of Docker's Engine API.
type dockerRoute struct {
	pattern string // as http.ServeMux takes it
	query   []parameter
	filters []string // keys of the parameter filters
	handle  http.HandlerFunc
}

// dockerRoutes are the requests of Docker's Engine API that are answered. Parameters and filters that are not named
// here are refused: none is accepted and ignored.
func (s *Server) dockerRoutes() []dockerRoute {
	return slices.Concat(s.dockerSystemRoutes(), s.dockerNetworkRoutes(), s.dockerContainerRoutes(),
		s.dockerExecRoutes(), missingRoutes())
}

// kind makes parameters of a kind.
func kind(kind string, names ...string) []parameter {
	var list []parameter
	for _, n := range names {
		list = append(list, parameter{name: n, kind: kind})
	}
	return list
}

// missingRoutes answer for what usernet does not have in the way that lets Docker's clients go on.
func missingRoutes() []dockerRoute {
	missing := func(pattern, format, value string) dockerRoute {
		return dockerRoute{
			pattern: pattern,
			handle: func(w http.ResponseWriter, r *http.Request) {
				fail(w, errdefs.NotFound(format, r.PathValue(value)))
			},
		}
	}
	list := []dockerRoute{
		// `docker inspect NAME` asks for a container, an image, a network, a volume and a plugin, and goes on at 404
		// only.
		{
			pattern: "GET /images/{rest...}",
			handle: func(w http.ResponseWriter, r *http.Request) {
				name, ok := strings.CutSuffix(r.PathValue("rest"), "/json")
				if !ok {
					unknown(w, r)
					return
				}
				fail(w, errdefs.NotFound("No such image: %s", name))
			},
		},
		missing("GET /volumes/{name}", "get %s: no such volume", "name"),
		missing("GET /plugins/{name}/json", "plugin %q not found", "name"),
		{
			pattern: "POST /swarm/leave",
			query:   kind("boolean", "force"),
			handle: func(w http.ResponseWriter, _ *http.Request) {
				fail(w, errdefs.Unavailable("This node is not part of a swarm"))
			},
		},
	}
	for _, p := range []string{"/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"} {
		list = append(list, dockerRoute{pattern: "GET " + p, query: kind("filters", "filters"), handle: noManager})
		if p != "/swarm" {
			list = append(list, dockerRoute{pattern: "GET " + p + "/{rest...}", handle: noManager})
		}
	}
	return list
}

func noManager(w http.ResponseWriter, _ *http.Request) {
	fail(w, errdefs.Unavailable(`This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" `+
		`to connect this node to swarm and try again.`))
}

// empty answers with a status and no body.
func empty(status int, f func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := f(r); err != nil {
			fail(w, err)
			return
		}
		w.WriteHeader(status)
	}
}

// withBody answers a request that has a body; 200 without a body where f returns nil.
func withBody[T any](f func(*http.Request, T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var t T
		if err := readBody(r, &t); err != nil {
			fail(w, err)
			return
		}
		v, err := f(r, t)
		if err == nil && v == nil {
			w.WriteHeader(http.StatusOK)
			return
		}
		reply(w, v, err)
	}
}
