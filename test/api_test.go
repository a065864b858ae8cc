package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
)

// request sends one request to the daemon's socket, and returns status, headers and body.
func (d *daemon) request(method, path, body string) (int, http.Header, string) {
	d.t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.socket)
		},
	}}
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, "http://docker"+path, rd)
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

// answers sends a request, which has to be answered with status and, where it is an error, with a message that contains
// words.
func (d *daemon) answers(status int, words, method, path, body string) {
	d.t.Helper()
	got, header, text := d.request(method, path, body)
	if got != status || status < 400 && !strings.Contains(text, words) {
		d.t.Errorf("%s %s %s: status %d, %s; want %d and %q", method, path, body, got, text, status, words)
	}
	if status >= 400 {
		var m struct{ Message string }
		if err := json.Unmarshal([]byte(text), &m); err != nil || m.Message == "" || !strings.Contains(m.Message,
			words) {
			d.t.Errorf("%s %s: the body is no message: %s", method, path, text)
		}
		if kind := header.Get("Content-Type"); kind != "application/json" {
			d.t.Errorf("%s %s: the error has type %q", method, path, kind)
		}
	}
}

func TestAPISocketIsTheUsersAlone(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	info, err := os.Stat(d.socket)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the socket has mode %04o, want 0600", mode)
	}
}

func TestAPIVersions(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for _, path := range []string{"/_ping", "/v1.24/_ping", "/v1.52/_ping"} {
		for _, method := range []string{"GET", "HEAD"} {
			status, header, body := d.request(method, path, "")
			if status != 200 || method == "GET" && body != "OK" {
				t.Errorf("%s %s: %d %q", method, path, status, body)
			}
			if header.Get("Api-Version") == "" || header.Get("Ostype") != "linux" ||
				!strings.Contains(header.Get("Server"), "usernet") ||
				header.Get("Cache-Control") == "" {
				t.Errorf("%s %s: headers %v", method, path, header)
			}
		}
	}
	for _, version := range []string{"", "/v1.24", "/v1.30", "/v1.40", "/v1.41", "/v1.44", "/v1.47", "/v1.50",
		"/v1.52"} {
		for _, path := range []string{"/networks", "/containers/json", "/version", "/info", "/networks/bridge"} {
			d.answers(200, "", "GET", version+path, "")
		}
	}
	d.answers(400, "client version 1.23 is too old. Minimum supported API version is 1.24", "GET", "/v1.23/networks", "")
	d.answers(400, "client version 1.999 is too new. Maximum supported API version is", "GET", "/v1.999/networks", "")
	for _, request := range []string{"GET /images/json", "POST /containers/create", "POST /swarm/init",
		"POST /v1.40/build", "GET /nothing", "PUT /networks/bridge"} {
		method, path, _ := strings.Cut(request, " ")
		d.answers(501, "", method, path, "")
	}
}

func TestAPIStatusCodes(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	create := func(status int, words, body string) {
		t.Helper()
		d.answers(status, words, "POST", "/v1.41/networks/create", body)
	}
	create(201, `"Id":"`, `{"Name":"mynet","CheckDuplicate":true,"Driver":"bridge","IPAM":{"Driver":"default","Config":[{"Subnet":"10.60.0.0/16"}]}}`)
	create(201, `"Id":"`, `{"Name":"plain"}`)
	create(409, "network with name mynet already exists", `{"Name":"mynet"}`)
	create(403, "operation is not permitted on predefined bridge network", `{"Name":"bridge"}`)
	create(403, "invalid pool request: Pool overlaps with other one on this address space", `{"Name":"x","IPAM":{"Config":[{"Subnet":"10.60.1.0/24"}]}}`)
	create(404, "could not find plugin nosuch in v1 plugin registry: plugin not found", `{"Name":"x","Driver":"nosuch"}`)
	create(403, "only one instance of \"host\" network is allowed", `{"Name":"x","Driver":"host"}`)
	create(400, "", `{"Name":""}`)
	create(201, `"Id":"`, `{"Name":"a b"}`)
	d.answers(204, "", "DELETE", "/networks/a%20b", "")
	create(400, "", `{"Name":`)
	create(400, "invalid name: name is empty", ``)
	create(400, "unexpected content after JSON", `{"Name":"x"} trailing`)
	create(400, `unknown IPAM option a`, `{"Name":"x","IPAM":{"Options":{"a":"b"}}}`)
	create(400, `driver-opt is not a valid bool`, `{"Name":"x","Options":{"com.docker.network.enable_ipv4":"foo"}}`)
	create(400, "invalid network config:\ninvalid ip-range 10.9.0.1/25: it should be 10.9.0.0/25", `{"Name":"x","IPAM":{"Config":[{"Subnet":"10.9.0.0/24","IPRange":"10.9.0.1/25"}]}}`)
	create(400, "failed to allocate gateway (10.9.0.255): Address already in use", `{"Name":"x","IPAM":{"Config":[{"Subnet":"10.9.0.0/24","Gateway":"10.9.0.255"}]}}`)
	create(201, `"Warning":"subnet fd09::/64 is ignored`, `{"Name":"six","IPAM":{"Config":[{"Subnet":"fd09::/64"}]}}`)
	d.answers(200, `"IPAM":{"Driver":"default","Options":null`, "GET", "/networks/six", "")
	d.answers(204, "", "DELETE", "/networks/six", "")
	create(400, "", `{"Name":"x","IPAM":{"Config":[{"Subnet":"10.61.0.1/33"}]}}`)
	create(400, "invalid gateway 10.62.0.1: parent subnet 10.61.0.0/24 doesn't contain this address", `{"Name":"x","IPAM":{"Config":[{"Subnet":"10.61.0.0/24","Gateway":"10.62.0.1"}]}}`)

	id := d.idle("c1")
	d.answers(200, `"Status":{"IPAM":{"Subnets":{"172.17.0.0/16":{"IPsInUse":4,"DynamicIPsAvailable":65532}}}}`, "GET", "/networks/bridge", "")
	if _, _, body := d.request("GET", "/v1.51/networks/bridge", ""); strings.Contains(body, "Status") {
		t.Errorf("API 1.51 has no status of networks: %s", body)
	}
	d.answers(404, "network nothing not found", "GET", "/networks/nothing", "")
	d.answers(404, "network nothing not found", "DELETE", "/networks/nothing", "")
	d.answers(403, "bridge is a pre-defined network and cannot be removed", "DELETE", "/networks/bridge", "")
	d.answers(404, "No such container: nobody", "GET", "/containers/nobody/json", "")
	d.answers(404, "No such container: nobody", "POST", "/networks/mynet/connect", `{"Container":"nobody"}`)
	d.answers(404, "network nothing not found", "POST", "/networks/nothing/connect", `{"Container":"c1"}`)
	d.answers(400, "user specified IP address is supported only when connecting to networks with user configured subnets",
		"POST", "/networks/plain/connect", `{"Container":"c1","EndpointConfig":{"IPAMConfig":{"IPv4Address":"172.18.0.77"}}}`)
	d.answers(400, "no configured subnet contains IP address 10.99.0.1",
		"POST", "/networks/mynet/connect", `{"Container":"c1","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.99.0.1"}}}`)
	d.answers(200, "", "POST", "/networks/mynet/connect", `{"Container":"c1","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.60.0.9"},"MacAddress":""}}`)
	d.answers(403, "endpoint with name c1 already exists in network mynet", "POST", "/networks/mynet/connect", `{"Container":"`+id+`"}`)
	d.answers(403, `error while removing network: network mynet has active endpoints (name:"c1" id:"`, "DELETE", "/networks/mynet", "")
	d.idle("c2")
	d.answers(403, "Address already in use", "POST", "/networks/mynet/connect", `{"Container":"c2","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.60.0.9"}}}`)
	d.answers(200, "", "POST", "/networks/mynet/disconnect", `{"Container":"c1"}`)
	d.answers(403, "is not connected to network mynet", "POST", "/networks/mynet/disconnect", `{"Container":"c1","Force":true}`)
	d.answers(204, "", "DELETE", "/networks/mynet", "")
	d.answers(400, "invalid filter 'colour'", "GET", `/networks?filters={"colour":["red"]}`, "")
	d.answers(400, "", "GET", `/networks?filters={`, "")
	d.answers(200, `"NetworksDeleted":["plain"]`, "POST", "/networks/prune", "")

	d.answers(409, "container is running: stop the container before removing or force remove", "DELETE", "/containers/c1", "")
	d.answers(409, "is already in use by container", "POST", "/containers/c1/rename?name=c2", "")
	d.answers(204, "", "POST", "/containers/c1/rename?name=c3", "")
	d.answers(400, "invalid signal: NOSUCH", "POST", "/containers/c3/kill?signal=NOSUCH", "")
	d.answers(204, "", "POST", "/containers/c3/kill", "")
	d.answers(200, `"StatusCode":137`, "POST", "/containers/c3/wait", "")
	d.answers(409, "is not running", "POST", "/containers/c3/kill", "")
	d.answers(304, "", "POST", "/containers/c3/stop", "")
	d.answers(400, `invalid condition: "foo"`, "POST", "/containers/c3/wait?condition=foo", "")
	d.answers(404, "No such container: nobody", "POST", "/containers/nobody/wait", "")
	d.answers(204, "", "POST", "/containers/c2/stop?t=0", "")
	d.answers(204, "", "DELETE", "/containers/c3", "")
	d.answers(404, "No such container: c3", "DELETE", "/containers/c3", "")
}

func TestAmbiguousPrefixIsRefused(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	count := map[byte]int{} // networks by the first digit of their ids
	for _, id := range strings.Fields(d.ok("network", "ls", "-q")) {
		count[id[0]]++
	}
	for i := 0; i < 17; i++ { // ids begin with one of 16 digits
		id := d.ok("network", "create", "--subnet", fmt.Sprintf("10.90.%d.0/24", i), fmt.Sprintf("n%d", i))
		if count[id[0]]++; count[id[0]] == 1 {
			continue
		}
		text := fmt.Sprintf("network %c is ambiguous (%d matches found based on ID prefix)", id[0], count[id[0]])
		d.answers(400, text, "GET", "/networks/"+id[:1], "")
		d.fails("is ambiguous", "network", "rm", id[:1])
		d.answers(200, id, "GET", "/networks/"+id[:12], "")
		return
	}
	t.Error("17 networks, and no two ids begin alike")
}
