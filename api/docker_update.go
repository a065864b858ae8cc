package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

// updated are the keys of Docker's update that are acted on.
var updated = []string{"Memory", "MemorySwap", "NanoCpus", "PidsLimit", "RestartPolicy"}

// updateContainer answers POST /containers/ID/update. Clients send all of Docker's limits, most of them as 0.
func (s *Server) updateContainer(w http.ResponseWriter, r *http.Request) {
	q, err := readUpdate(r)
	if err == nil {
		err = s.b.UpdateContainer(r.Context(), ref(r), q)
	}
	reply(w, container.UpdateResponse{Warnings: []string{}}, err)
}

func readUpdate(r *http.Request) (q UpdateRequest, err error) {
	var body map[string]json.RawMessage
	if err := readBody(r, &body); err != nil {
		return q, err
	}
	for key, value := range body {
		if !slices.Contains(updated, key) && !isEmpty(value) {
			return q, errdefs.NotImplemented("%s: usernet has the limits %s", key, strings.Join(updated[:4], ", "))
		}
	}
	read := func(key string, v any) {
		if value := body[key]; err == nil && value != nil {
			if e := json.Unmarshal(value, v); e != nil {
				err = errdefs.Invalid("invalid JSON: %s: %w", key, e)
			}
		}
	}
	var pids *int64
	var policy container.RestartPolicy
	read("Memory", &q.Resources.Memory)
	read("MemorySwap", &q.Resources.MemorySwap)
	read("NanoCpus", &q.Resources.NanoCPUs)
	read("PidsLimit", &pids)
	read("RestartPolicy", &policy)
	if pids != nil {
		q.Resources.PidsLimit = *pids
		if *pids == 0 {
			q.Resources.PidsLimit = -1
		}
	}
	if policy.Name != "" {
		q.Restart = &network.RestartPolicy{Mode: network.RestartMode(policy.Name), Max: policy.MaximumRetryCount}
	}
	return q, err
}

// isEmpty says whether a JSON value asks for nothing.
func isEmpty(value json.RawMessage) bool {
	switch string(bytes.TrimSpace(value)) {
	case "0", "null", "false", `""`, "[]", "{}":
		return true
	}
	return false
}
