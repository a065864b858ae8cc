package api

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/moby/moby/api/types/container"

	"github.com/usernet/usernet/network"
)

func (s *Server) dockerContainerRoutes() []dockerRoute {
	return []dockerRoute{
		{
			"GET /containers/json",
			slices.Concat(kind("boolean", "all", "size"), kind("integer", "limit"), kind("filters", "filters")),
			[]string{
				"name", "id", "status", "label", "network", "exited", "publish", "expose",
				"before", "since", "ancestor", "volume", "health", "isolation", "is-task",
			},
			get(s.listContainers),
		},
		{"GET /containers/{ref}/json", kind("boolean", "size"), nil, get(s.inspectContainer)},
		{"POST /containers/{ref}/stop", append(kind("integer", "t"), kind("string", "signal")...), nil,
			s.stopContainer},
		{"GET /containers/{ref}/logs", slices.Concat(
			kind("boolean", "follow", "stdout", "stderr", "timestamps", "details"),
			kind("string", "since", "until", "tail")), nil, s.containerLogs},
		{"GET /containers/{ref}/top", kind("string", "ps_args"), nil, get(s.containerTop)},
		{"GET /containers/{ref}/stats", kind("boolean", "stream", "one-shot"), nil, s.containerStats},
		{"POST /containers/{ref}/start", nil, nil, s.startContainer},
		{"POST /containers/{ref}/restart", append(kind("integer", "t"), kind("string", "signal")...), nil,
			empty(http.StatusNoContent, func(r *http.Request) error {
				return s.b.RestartContainer(r.Context(), ref(r), r.URL.Query().Get("signal"), stopTimeout(r))
			})},
		{"POST /containers/{ref}/kill", kind("string", "signal"), nil, empty(http.StatusNoContent,
			func(r *http.Request) error {
				return s.b.KillContainer(r.Context(), ref(r), r.URL.Query().Get("signal"))
			})},
		{"POST /containers/{ref}/rename", kind("string", "name"), nil, empty(http.StatusNoContent,
			func(r *http.Request) error {
				return s.b.RenameContainer(r.Context(), ref(r), r.URL.Query().Get("name"))
			})},
		{"POST /containers/{ref}/update", nil, nil, s.updateContainer},
		{"POST /containers/{ref}/wait", kind("string", "condition"), nil, s.waitContainer},
		{"DELETE /containers/{ref}", kind("boolean", "force", "v", "link"), nil, empty(http.StatusNoContent,
			s.removeContainer)},
	}
}

// listContainers answers GET /containers/json. Containers have no writable layer, so their size is 0 whether it is
// asked for or not.
func (s *Server) listContainers(r *http.Request) (any, error) {
	f, err := readFilters(r)
	if err == nil {
		err = f.checkContainers()
	}
	if err != nil {
		return nil, err
	}
	all, limit := boolParam(r, "all"), intParam(r, "limit", 0)
	ended := all || limit > 0 || len(f["status"]) > 0 || len(f["exited"]) > 0
	containers, err := f.age(s.b.Containers(), s.b.Container)
	if err != nil {
		return nil, err
	}
	list := []container.Summary{}
	for _, c := range containers {
		health := s.b.Health(c)
		if !c.InLife() && !ended || !f.matchContainer(c) || !f.matchHealth(health) {
			continue
		}
		if limit > 0 && len(list) == limit {
			break
		}
		bound, err := s.b.Published(c.ID)
		if err != nil {
			continue // it is gone
		}
		list = append(list, dockerSummary(c, bound, health))
	}
	slices.SortStableFunc(list, func(a, b container.Summary) int { return cmp.Compare(b.Created, a.Created) })
	return list, nil
}

func (s *Server) inspectContainer(r *http.Request) (any, error) {
	c, err := s.b.Container(ref(r))
	if err != nil {
		return nil, err
	}
	bound, err := s.b.Published(c.ID)
	if err != nil {
		return nil, err
	}
	path, _ := s.b.LogPath(c.ID) // fails where the container is gone, as the line before would
	inspect := dockerInspect(c, bound, path)
	addHealth(&inspect, c, s.b.Health(c))
	if boolParam(r, "size") {
		inspect.SizeRw, inspect.SizeRootFs = new(int64), new(int64)
	}
	if before(r, "1.52") {
		return withBridgeFields(inspect)
	}
	return inspect, nil
}

// startContainer answers 304 where the container runs.
func (s *Server) startContainer(w http.ResponseWriter, r *http.Request) {
	started, err := s.b.StartAgain(r.Context(), ref(r))
	switch {
	case err != nil:
		fail(w, err)
	case started:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusNotModified)
	}
}

// stopContainer answers 304 where the container does not run.
func (s *Server) stopContainer(w http.ResponseWriter, r *http.Request) {
	c, err := s.b.Container(ref(r))
	if err != nil {
		fail(w, err)
		return
	}
	if c.Status != network.Running && c.Status != network.Restarting {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if err := s.b.StopContainer(r.Context(), c.ID, r.URL.Query().Get("signal"), stopTimeout(r)); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// removeContainer removes a container. It has no anonymous volumes that v could remove with it.
func (s *Server) removeContainer(r *http.Request) error {
	if boolParam(r, "link") {
		return errdefs.NotImplemented("link: links cannot be removed, they end with their container")
	}
	return s.b.RemoveContainer(r.Context(), ref(r), boolParam(r, "force"))
}

// waitContainer sends the header at once and the exit status when the condition is met. Docker's clients wait for the
// header before they do what makes the container end.
func (s *Server) waitContainer(w http.ResponseWriter, r *http.Request) {
	condition, err := parseCondition(r.URL.Query().Get("condition"))
	if err == nil {
		_, err = s.b.Container(ref(r))
	}
	if err != nil {
		fail(w, err)
		return
	}
	if !before(r, "1.30") { // older clients read an error's status from the header
		flushHeader(w)
	}
	code, err := s.b.WaitContainer(r.Context(), ref(r), condition)
	answer := container.WaitResponse{StatusCode: int64(code)}
	if err != nil {
		answer = container.WaitResponse{StatusCode: -1, Error: &container.WaitExitError{Message: err.Error()}}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // a client that is gone
}

// WaitCondition says what WaitContainer waits for.
type WaitCondition string

// Docker's conditions.
const (
	WaitNotRunning WaitCondition = "not-running" // at once where the container has ended already
	WaitNextExit   WaitCondition = "next-exit"
	WaitRemoved    WaitCondition = "removed"
)

func parseCondition(s string) (WaitCondition, error) {
	switch c := WaitCondition(s); c {
	case "":
		return WaitNotRunning, nil
	case WaitNotRunning, WaitNextExit, WaitRemoved:
		return c, nil
	}
	return "", errdefs.Invalid("invalid condition: %q", s)
}

// flushHeader sends status 200 and the header of an answer whose body comes later, or in parts.
func flushHeader(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush() // a client that is gone is noticed by the request's context
}
