// Package api is the daemon's HTTP face on a unix socket: the server that a Backend stands behind, and the client that the
// commands use.
//
// Bodies are JSON. An error is a status and {"message": TEXT}, the text being what a user is shown.
package api
