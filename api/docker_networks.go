package api

import (
	"encoding/json"
	"net/http"

	"github.com/usernet/usernet/internal/errdefs"

	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/network"
)

func (s *Server) dockerNetworkRoutes() []dockerRoute {
	list := []string{"name", "id", "driver", "scope", "type", "label", "dangling"}
	return []dockerRoute{
		{"GET /networks", kind("filters", "filters"), list, get(s.listNetworks)},
		{"GET /networks/{$}", kind("filters", "filters"), list, get(s.listNetworks)},
		{"GET /networks/{ref...}", append(kind("boolean", "verbose"), kind("string", "scope")...), nil,
			get(s.inspectNetwork)},
		{"DELETE /networks/{ref...}", nil, nil, empty(http.StatusNoContent, func(r *http.Request) error {
			return s.b.RemoveNetwork(r.Context(), ref(r))
		})},
		{"POST /networks/create", nil, nil, s.createNetwork},
		{"POST /networks/prune", kind("filters", "filters"), []string{"until", "label", "label!"},
			get(s.pruneNetworks)},
		{"POST /networks/{ref}/connect", nil, nil, withBody(func(r *http.Request, q dockernet.ConnectRequest) (any,
			error) {
			e, err := endpointSpec(q.EndpointConfig)
			if err != nil {
				return nil, err
			}
			if before(r, "1.54") { // which had no MAC address there
				e.MAC = network.MAC{}
			}
			return nil, s.b.Connect(r.Context(), ref(r), q.Container, e)
		})},
		{"POST /networks/{ref}/disconnect", nil, nil,
			withBody(func(r *http.Request, q dockernet.DisconnectRequest) (any, error) {
				return nil, s.b.Disconnect(r.Context(), ref(r), q.Container, q.Force)
			})},
	}
}

func (s *Server) listNetworks(r *http.Request) (any, error) {
	f, err := readFilters(r)
	if err == nil {
		err = f.checkNetworks()
	}
	if err != nil {
		return nil, err
	}
	containers := s.b.Containers()
	list, full := []dockernet.Network{}, []dockernet.Inspect{}
	for _, n := range s.b.Networks() {
		if f.matchNetwork(n, containers) {
			list = append(list, dockerNetwork(n))
			full = append(full, dockerNetworkInspect(n, containers, false))
		}
	}
	if before(r, "1.28") { // which had the containers in the list
		return full, nil
	}
	return list, nil
}

// inspectNetwork shows one network. Parameter verbose adds what only swarms have, so nothing.
func (s *Server) inspectNetwork(r *http.Request) (any, error) {
	n, err := s.b.Network(ref(r))
	if err != nil {
		return nil, err
	}
	if scope := r.URL.Query().Get("scope"); scope != "" && scope != string(n.Scope) {
		return nil, errdefs.NotFound("network %s not found", ref(r))
	}
	return dockerNetworkInspect(n, append(s.b.Containers(), s.b.ContainersElsewhere(n.ID)...), !before(r, "1.52")), nil
}

// pruneNetworks removes the user-defined networks that nothing uses.
func (s *Server) pruneNetworks(r *http.Request) (any, error) {
	f, err := readFilters(r)
	if err != nil {
		return nil, err
	}
	until, err := f.until()
	if err != nil {
		return nil, err
	}
	report := struct{ NetworksDeleted []string }{}
	report.NetworksDeleted, err = s.b.PruneNetworks(r.Context(), func(n *network.Network) bool {
		return (until.IsZero() || !n.Created.After(until)) && f.matchLabels(n.Labels)
	})
	return report, err
}

// createRequest is Docker's, with a field that older clients send. Names are always unique, so nothing depends on it.
type createRequest struct {
	dockernet.CreateRequest
	CheckDuplicate *bool
}

func (s *Server) createNetwork(w http.ResponseWriter, r *http.Request) {
	var q createRequest
	if err := readBody(r, &q); err != nil {
		fail(w, err)
		return
	}
	switch {
	case q.Ingress:
		fail(w, errdefs.Invalid("ingress networks belong to swarms, which usernet does not have"))
		return
	case q.IPAM != nil && q.IPAM.Driver != "" && q.IPAM.Driver != "default":
		fail(
			w,
			errdefs.NotFound("IPAM driver %q is not there: usernet hands out addresses itself (default)",
				q.IPAM.Driver),
		)
		return
	}
	spec := networkSpec(q.CreateRequest)
	if before(r, "1.48") { // which had no EnableIPv4
		spec.EnableIPv4 = nil
	}
	n, warning, err := s.b.CreateNetwork(r.Context(), spec)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(dockernet.CreateResponse{ID: n.ID, Warning: warning}) // a client that is gone
}
