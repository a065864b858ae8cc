package handover

import "strings"

// Kind says what a descriptor is.
type Kind string

// The kinds of descriptors.
const (
	API         Kind = "api"               // the listener of the API
	Inherited   Kind = "inherited"         // a bound socket from a socket unit, for published ports
	Published   Kind = "published"         // a socket of a published port
	TAP         Kind = "sandbox-tap"       // the device of an endpoint
	DNSPacket   Kind = "sandbox-dns-udp"   // a sandbox's DNS stub, UDP
	DNSListener Kind = "sandbox-dns-tcp"   // a sandbox's DNS stub, TCP
	NetNS       Kind = "sandbox-netns"     // the network namespace of what was attached by a descriptor
	DNSRules    Kind = "sandbox-dns-rules" // keeps the rules in place that lead to the stub
)

// ID names a descriptor. Two descriptors of one ID are for the same.
type ID struct {
	Kind      Kind
	Container string `json:",omitempty"` // id, of what leads into a sandbox
	Endpoint  string `json:",omitempty"` // id, of a TAP
	Name      string `json:",omitempty"` // interface of a TAP; protocol, address and port of a socket
}

// prefix is what names in the service manager's store begin with. Sockets of socket units are called otherwise.
const prefix = "usernet"

// String is id as a name in the service manager's store. Only Name can have a slash in it.
func (id ID) String() string {
	return strings.Join([]string{prefix, string(id.Kind), id.Container, id.Endpoint, id.Name}, "/")
}

// parts is the number of parts of a name.
const parts = 5

// ParseID reads what String has written; ok is false where it is something else.
func ParseID(name string) (id ID, ok bool) {
	p := strings.SplitN(name, "/", parts)
	if len(p) != parts || p[0] != prefix || p[1] == "" {
		return id, false
	}
	return ID{Kind: Kind(p[1]), Container: p[2], Endpoint: p[3], Name: p[4]}, true
}

// maxName is the length of a name in the store, in bytes (FDNAME_MAX in systemd's src/basic/constants.h).
const maxName = 255

// storable says whether a service manager takes id's name (sd_pid_notify_with_fds(3), FDNAME).
func (id ID) storable() bool {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }
	name := id.String()
	return len(name) <= maxName && !strings.ContainsFunc(name, odd)
}

// essential says whether a port refuses connections while the descriptor is closed. All others can be opened again
// without harm.
func (id ID) essential() bool { return id.Kind == Published }
