package bgp

import (
	"fmt"
	"strings"
)

// notification is why a session ends, as a NOTIFICATION message says it (RFC 4271, section 4.5).
type notification struct {
	code, subcode uint8
	data          []byte
	received      bool   // it came from the neighbour
	why           string // for people; the message does not have it
}

// Error codes and subcodes (RFC 4271, section 6; RFC 4486; RFC 5492; RFC 8538).
const (
	errHeader, errOpen, errUpdate, errHold, errFSM, errCease = 1, 2, 3, 4, 5, 6

	headerNotSynchronized, headerBadLength, headerBadType = 1, 2, 3

	openBadVersion, openBadAS, openBadID, openBadHoldTime, openUnsupportedCapability = 1, 2, 3, 6, 7

	updateMalformedList, updateUnrecognized, updateOptional, updateNetwork = 1, 2, 9, 10

	ceaseShutdown, ceaseDeconfigured, ceaseHardReset = 2, 3, 9
)

// notificationNames are what people call them.
var notificationNames = [...]struct {
	code, subcode uint8
	name          string
}{
	{errHeader, headerNotSynchronized, "not synchronized"},
	{errHeader, headerBadLength, "bad message length"},
	{errHeader, headerBadType, "bad message type"},
	{errOpen, openBadVersion, "unsupported version"},
	{errOpen, openBadAS, "bad AS"},
	{errOpen, openBadID, "bad router id"},
	{errOpen, openBadHoldTime, "unacceptable hold time"},
	{errOpen, openUnsupportedCapability, "unsupported capability"},
	{errUpdate, updateMalformedList, "malformed attributes"},
	{errUpdate, updateUnrecognized, "unknown well-known attribute"},
	{errUpdate, updateOptional, "malformed routes"},
	{errUpdate, updateNetwork, "malformed prefixes"},
	{errHold, 0, "hold timer expired"},
	{errCease, ceaseShutdown, "administrative shutdown"},
	{errCease, ceaseDeconfigured, "neighbour de-configured"},
	{errCease, 4, "administrative reset"},
	{errCease, 5, "connection rejected"},
	{errCease, 6, "configuration changed"},
	{errCease, 7, "connection collision"},
	{errCease, ceaseHardReset, "hard reset"},
}

func (n *notification) Error() string {
	var b strings.Builder
	if n.received {
		b.WriteString("the neighbour ended the session: ")
	}
	name := fmt.Sprintf("error %d/%d", n.code, n.subcode)
	for _, known := range notificationNames {
		if known.code == n.code && known.subcode == n.subcode {
			name = known.name
		}
	}
	b.WriteString(name)
	if n.why != "" {
		b.WriteString(": " + n.why)
	}
	return b.String()
}

// final says that the neighbour's routes are over with its session.
func (n *notification) final() bool {
	return n.received && n.code == errCease &&
		(n.subcode == ceaseShutdown || n.subcode == ceaseDeconfigured || n.subcode == ceaseHardReset)
}

// updateError is an error in an UPDATE that leaves nothing to go on with (RFC 7606, section 3).
func updateError(subcode uint8, format string, args ...any) error {
	return &notification{code: errUpdate, subcode: subcode, why: fmt.Sprintf(format, args...)}
}

// openError refuses a neighbour's OPEN.
func openError(subcode uint8, format string, args ...any) error {
	return &notification{code: errOpen, subcode: subcode, why: fmt.Sprintf(format, args...)}
}
