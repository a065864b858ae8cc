package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/usernet/usernet/network"
)

// route is one request that the daemon answers beside Docker's. docs/openapi.yaml is made from the list of them;
// after a change, go test ./api -run OpenAPI -update writes it anew.
type route struct {
	method, path string
	summary      string
	query        []parameter
	in, out      reflect.Type // of the bodies; none where there is no body
	stream       string       // type of an answer that is no JSON and has no end of its own; "": it is none
	handle       http.HandlerFunc
}

// none stands for a body that is not there.
type none struct{}

// on makes a route from a function of the body and the request. A request whose body has fields that are not In's is
// refused.
func on[In, Out any](method, path, summary string, f func(*http.Request, In) (Out, error), query ...parameter) route {
	in, out := reflect.TypeFor[In](), reflect.TypeFor[Out]()
	return route{
		method:  method,
		path:    path,
		summary: summary,
		query:   query,
		in:      in,
		out:     out,
		handle: func(w http.ResponseWriter, r *http.Request) {
			var body In
			if in != reflect.TypeFor[none]() {
				if err := readBody(r, &body); err != nil {
					fail(w, err)
					return
				}
			}
			v, err := f(r, body)
			if err == nil && out == reflect.TypeFor[none]() {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			reply(w, v, err)
		}}
}

func ref(r *http.Request) string { return r.PathValue("ref") }

// usernetRoutes are the paths under /usernet/.
func (s *Server) usernetRoutes() []route {
	return slices.Concat(s.daemonRoutes(), s.clusterRoutes(), s.networkRoutes(), s.containerRoutes(),
		s.attachmentRoutes(), s.processRoutes(), s.portRoutes(), s.captureRoutes(), s.sampleRoutes(), s.traceRoutes())
}

func (s *Server) daemonRoutes() []route {
	return []route{
		on("GET", "/usernet/info", "The daemon's state in numbers",
			func(*http.Request, none) (Info, error) { return s.b.Info(), nil }),
		on("POST", "/usernet/shutdown", "End the daemon, as SIGTERM does; containers go on",
			func(*http.Request, none) (none, error) {
				s.b.Shutdown()
				return none{}, nil
			}),
		on(
			"GET",
			"/usernet/dns/query",
			"What the embedded DNS server answers, and from where",
			func(r *http.Request, _ none) (DNSAnswer, error) {
				q := r.URL.Query()
				return s.b.QueryDNS(r.Context(), q.Get("container"), q.Get("name"), q.Get("type"))
			},
			parameter{"name", "string", "the name", true},
			parameter{"type", "string", "the record type; A where none is given", false},
			parameter{
				"container",
				"string",
				"the container that asks; without one, names of containers are unknown",
				false,
			},
		),
		on("GET", "/usernet/flows", "Connections and associations through the gateways",
			func(r *http.Request, _ none) ([]Flow, error) {
				return s.b.Flows(r.URL.Query().Get("container"))
			}, parameter{"container", "string", "only this container's", false}),
	}
}

func (s *Server) clusterRoutes() []route {
	return []route{
		on("GET", "/usernet/cluster", "The cluster that the host is in: hosts, paths to them, state of the store",
			func(*http.Request, none) (Cluster, error) { return s.b.Cluster() }),
		on("POST", "/usernet/cluster/leave", "Take a host's records out of the cluster",
			func(r *http.Request, q LeaveRequest) (none, error) {
				return none{}, s.b.LeaveCluster(r.Context(), q.Host, q.Force)
			}),
		on("POST", "/usernet/cluster/expose", "Have containers of other hosts reach a subnet through this host",
			func(r *http.Request, q ExposeRequest) (none, error) {
				return none{}, s.b.ExposeSubnet(r.Context(), q.Subnet)
			}),
		on("POST", "/usernet/cluster/unexpose", "End that a subnet is reached through this host",
			func(_ *http.Request, q ExposeRequest) (none, error) { return none{}, s.b.UnexposeSubnet(q.Subnet) }),
	}
}

func (s *Server) networkRoutes() []route {
	return []route{
		on("GET", "/usernet/networks", "All networks, by name",
			func(*http.Request, none) ([]*network.Network, error) { return s.b.Networks(), nil }),
		on("POST", "/usernet/networks", "Make a network",
			func(r *http.Request, spec network.NetworkSpec) (CreatedNetwork, error) {
				n, warning, err := s.b.CreateNetwork(r.Context(), spec)
				if err != nil {
					return CreatedNetwork{}, err
				}
				return CreatedNetwork{*n, warning}, nil
			}),
		on("GET", "/usernet/networks/{ref}", "One network",
			func(r *http.Request, _ none) (*network.Network, error) { return s.b.Network(ref(r)) }),
		on("DELETE", "/usernet/networks/{ref}", "Remove a network that has no endpoints",
			func(r *http.Request, _ none) (none, error) {
				return none{}, s.b.RemoveNetwork(r.Context(), ref(r))
			}),
		on(
			"GET",
			"/usernet/networks/{ref}/details",
			"Switch ports, drops by reason, counters; null where nothing runs on the network",

			func(r *http.Request, _ none) (any, error) { return s.b.NetworkDetails(ref(r)) },
		),
		on(
			"POST",
			"/usernet/networks/{ref}/connect",
			"Give a container an interface on the network, at once where it runs",
			func(r *http.Request, a Attachment) (none, error) {
				return none{}, s.b.Connect(r.Context(), ref(r), a.Container, a.Endpoint)
			},
		),
		on("POST", "/usernet/networks/{ref}/update", "Change where the containers of the network may connect to outside",
			func(r *http.Request, q NetworkUpdate) (none, error) {
				return none{}, s.b.UpdateNetwork(r.Context(), ref(r), q)
			}),
		on("POST", "/usernet/networks/{ref}/policy", "Change which containers of the network reach each other",
			func(r *http.Request, q PolicyRequest) (none, error) {
				return none{}, s.b.SetNetworkPolicy(r.Context(), ref(r), q.Policy)
			}),
		on("POST", "/usernet/networks/{ref}/disconnect", "Take a container's interface on the network away",
			func(r *http.Request, a Attachment) (none, error) {
				return none{}, s.b.Disconnect(r.Context(), ref(r), a.Container, a.Force)
			}),
	}
}

func (s *Server) containerRoutes() []route {
	return []route{
		on("GET", "/usernet/containers", "All containers, ended ones included, the newest first",
			func(*http.Request, none) ([]*network.Container, error) { return s.b.Containers(), nil }),
		on("POST", "/usernet/containers",
			"Reserve a container's name and addresses; its sandbox has to be started within a minute",
			s.createContainer),
		on("GET", "/usernet/containers/{ref}", "One container",
			func(r *http.Request, _ none) (*network.Container, error) { return s.b.Container(ref(r)) }),
		on("DELETE", "/usernet/containers/{ref}", "Forget a container; with force, an attached one is detached",
			func(r *http.Request, _ none) (none, error) {
				return none{}, s.b.RemoveContainer(r.Context(), ref(r), boolParam(r, "force"))
			}, parameter{"force", "boolean", "kill it first where it runs, detach it where it is attached", false}),
		on("GET", "/usernet/containers/{ref}/log",
			"Path of the file with a detached container's output, a line of JSON for each line",
			func(r *http.Request, _ none) (string, error) { return s.b.LogPath(ref(r)) }),
	}
}

func (s *Server) attachmentRoutes() []route {
	return []route{
		on("POST", "/usernet/attachments",
			"Give the network namespace whose descriptor comes with the request (SCM_RIGHTS) interfaces",
			s.attach),
		on("GET", "/usernet/attachments",
			"The containers that were attached with keys, or with those that begin with a text",
			func(r *http.Request, _ none) ([]*network.Container, error) {
				return s.attachments(r.URL.Query().Get("prefix")), nil
			}, parameter{"prefix", "string", "how the keys begin", false}),
		on("DELETE", "/usernet/attachments/{ref}", "Take the interfaces away that were attached with a key",
			func(r *http.Request, _ none) (none, error) {
				return none{}, s.b.Detach(r.Context(), ref(r))
			}),
	}
}

// processRoutes are about a container's processes: their start, signals and end.
func (s *Server) processRoutes() []route {
	signal := func(def string) parameter {
		return parameter{"signal", "string", "name or number; " + def + " where there is none", false}
	}
	return []route{
		on("POST", "/usernet/containers/{ref}/start",
			"Tell the daemon which processes a created container consists of, and make its network",
			func(r *http.Request, p Started) (StartReply, error) {
				return s.b.StartContainer(r.Context(), ref(r), p)
			}),
		on("POST", "/usernet/containers/{ref}/exit", "Report that a container ended",
			func(r *http.Request, _ none) (none, error) {
				return none{}, s.b.ProcessExited(r.Context(), ref(r), intParam(r, "pid", 0), intParam(r, "code", 0))
			}, parameter{"code", "integer", "exit status", true},
			parameter{"pid", "integer", "of the process that ended; a report about one of an earlier run is dropped", false}),
		on("POST", "/usernet/containers/{ref}/health", "Report what a container's health check says",
			func(r *http.Request, h network.Health) (none, error) {
				return none{}, s.b.ReportHealth(r.Context(), ref(r), intParam(r, "pid", 0), h)
			}, parameter{"pid", "integer", "the container's first process", true}),
		on("POST", "/usernet/containers/{ref}/again",
			"Run a container that has ended once more, with its addresses where they are free; false: it runs",
			func(r *http.Request, _ none) (bool, error) { return s.b.StartAgain(r.Context(), ref(r)) }),
		on("POST", "/usernet/containers/{ref}/restart", "Stop a container where it runs, and run it again",
			func(r *http.Request, _ none) (none, error) {
				return none{}, s.b.RestartContainer(r.Context(), ref(r), r.URL.Query().Get("signal"), stopTimeout(r))
			}, parameter{"t", "integer", "as for stop", false}, signal("the container's own")),
		on("POST", "/usernet/containers/{ref}/update",
			"Change limits that are not 0 (pids_limit -1: no limit), and the restart policy; at once where it runs",
			func(r *http.Request, q UpdateRequest) (none, error) {
				return none{}, s.b.UpdateContainer(r.Context(), ref(r), q)
			}),
		on("POST", "/usernet/containers/{ref}/stop", "End a container with a signal, and with KILL after a time",
			func(r *http.Request, _ none) (none, error) {
				return none{}, s.b.StopContainer(r.Context(), ref(r), r.URL.Query().Get("signal"), stopTimeout(r))
			}, parameter{"t", "integer", "seconds until KILL; the container's own where there is none, and without end where " +
				"it is negative", false}, signal("the container's own")),
		on("POST", "/usernet/containers/{ref}/kill", "Send a signal to a container's first process",
			func(r *http.Request, _ none) (none, error) {
				return none{}, s.b.KillContainer(r.Context(), ref(r), r.URL.Query().Get("signal"))
			}, signal("KILL")),
		{
			method:  "POST",
			path:    "/usernet/containers/{ref}/wait",
			summary: "Answer with the exit status once the container has ended; the header comes at once",
			in:      reflect.TypeFor[none](),
			out:     reflect.TypeFor[int](),
			handle:  s.waitStatus,
		},
	}
}

func (s *Server) portRoutes() []route {
	return []route{
		on("GET", "/usernet/containers/{ref}/ports", "Published ports as they are bound now",
			func(r *http.Request, _ none) ([]Published, error) { return s.b.Published(ref(r)) }),
		on("POST", "/usernet/containers/{ref}/ports",
			"Publish ports of a running container: all of them, or with an error none",
			func(r *http.Request, p []network.PortBinding) ([]Published, error) {
				return s.b.PublishPorts(r.Context(), ref(r), p)
			}),
		on("DELETE", "/usernet/containers/{ref}/ports", "Take published ports away; host_port 0 stands for any",
			func(r *http.Request, p []network.PortBinding) (none, error) {
				return none{}, s.b.UnpublishPorts(r.Context(), ref(r), p)
			}),
	}
}

// attach answers with the texts as well, since a client in the namespace may ask nothing more once it is attached.
func (s *Server) attach(r *http.Request, q AttachRequest) (AttachReply, error) {
	if q.ParentHolds {
		parent, err := peerParent(r.Context())
		if err != nil {
			return AttachReply{}, err
		}
		q.Holder, q.ParentHolds = parent, false
	}
	c, err := s.b.Attach(r.Context(), q, takeFile(r.Context()))
	if err != nil {
		return AttachReply{}, err
	}
	files, err := s.b.ContainerFiles(c.ID)
	if err != nil {
		return AttachReply{}, err
	}
	return AttachReply{*c, files}, nil
}

// attachments are the containers with an endpoint whose key begins with prefix; those without a key count for no
// prefix.
func (s *Server) attachments(prefix string) []*network.Container {
	return slices.DeleteFunc(s.b.Containers(), func(c *network.Container) bool {
		return !slices.ContainsFunc(c.Endpoints,
			func(e *network.Endpoint) bool { return e.Key != "" && strings.HasPrefix(e.Key, prefix) })
	})
}

// waitStatus sends the header at once, so that a client knows that it waits, and the exit status when the container
// has ended. Where the daemon ends first, the answer breaks off.
func (s *Server) waitStatus(w http.ResponseWriter, r *http.Request) {
	if _, err := s.b.Container(ref(r)); err != nil {
		fail(w, err)
		return
	}
	flushHeader(w)
	code, err := s.b.WaitContainer(r.Context(), ref(r), WaitNotRunning)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_ = json.NewEncoder(w).Encode(code) // a client that is gone
}

func (s *Server) createContainer(r *http.Request, spec network.ContainerSpec) (Created, error) {
	c, warnings, err := s.b.CreateContainer(r.Context(), spec)
	if err != nil {
		return Created{}, err
	}
	return Created{c, warnings, network.LinkEnvironment(c, s.b.Container)}, nil
}

// Created is the answer to a container's creation.
type Created struct {
	Container *network.Container
	Warnings  []string
	Env       []string // for its command: what links on the default bridge add
}

// CreatedNetwork is the answer to a network's creation.
type CreatedNetwork struct {
	network.Network
	Warning string `json:"warning,omitempty"` // names what was asked for and is ignored, as Docker ignores it
}

// Attachment asks for an endpoint, or for its end.
type Attachment struct {
	Container string
	Endpoint  network.EndpointSpec
	Force     bool
}
