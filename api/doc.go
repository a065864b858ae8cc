// Package api is the daemon's HTTP API on a unix socket: a Server in front of a Backend, and the Client that the
// commands use.
//
// The central idea is that each request stands in a table of routes with its parameters and filters. What is not in the
// table is refused by its name, so nothing is accepted and ignored, and docs/openapi.yaml is generated from it.
// Docker's requests (docker*.go) answer with Docker's types, statuses and texts; those under /usernet/ (routes.go) with
// the model's.
//
// The package serves only its own user and root (peer.go), and no web pages. It never touches a network, a namespace or
// the store: that is the Backend's, which package daemon implements. An error that a Backend returns carries a class of
// internal/errdefs, from which the HTTP status follows; its text is shown to the user.
//
//	client := api.NewClient("/run/user/1000/usernet/usernet.sock")
//	created, err := client.NetworkCreate(ctx, network.NetworkSpec{Name: "mynet"})
package api
