package errdefs

import (
	"errors"

	"github.com/containerd/errdefs"
)

// Topic is a section of docs/troubleshooting.md, by the anchor of its heading. Each error that a user can meet has one:
// by About, or else by its class. A test holds the list and the page to each other.
type Topic string

// The topics of classes.
const (
	TopicInvalid        Topic = "a-request-is-wrong"
	TopicNotFound       Topic = "something-is-not-there"
	TopicConflict       Topic = "something-is-in-the-way"
	TopicForbidden      Topic = "something-is-not-allowed"
	TopicUnavailable    Topic = "a-limit-is-reached-or-something-is-missing"
	TopicNotImplemented Topic = "usernet-does-not-do-that"
	TopicInternal       Topic = "something-failed-on-this-machine"
)

// The topics of errors that are met often, and of what `usernet doctor` finds.
const (
	TopicNoDaemon       Topic = "no-daemon-answers"
	TopicDaemonEnded    Topic = "the-daemon-ended"
	TopicDaemonHangs    Topic = "the-daemon-hangs"
	TopicOtherDaemon    Topic = "another-daemon-uses-the-state"
	TopicOtherVersion   Topic = "the-daemon-is-of-another-version"
	TopicFault          Topic = "a-fault-in-usernet"
	TopicUsage          Topic = "a-command-line-is-wrong"
	TopicCommand        Topic = "a-command-cannot-be-run"
	TopicNamespaces     Topic = "namespaces-cannot-be-made"
	TopicTUN            Topic = "there-is-no-tun-device"
	TopicPing           Topic = "pings-to-the-outside-get-no-answer"
	TopicMachine        Topic = "the-machine-lacks-something"
	TopicPortTaken      Topic = "port-is-already-allocated"
	TopicPortLow        Topic = "a-port-below-1024-is-refused"
	TopicPortBind       Topic = "a-port-cannot-be-bound"
	TopicNames          Topic = "a-name-does-not-resolve"
	TopicRefused        Topic = "a-connection-is-refused-or-gets-no-answer"
	TopicRights         Topic = "operation-not-permitted-in-a-container"
	TopicHostLoopback   Topic = "the-hosts-services-are-not-reached"
	TopicFrames         Topic = "frames-are-dropped"
	TopicLimits         Topic = "a-container-is-at-a-limit"
	TopicFiles          Topic = "too-many-open-files"
	TopicCluster        Topic = "the-cluster-is-not-reached"
	TopicState          Topic = "the-state-is-damaged"
	TopicConfiguration  Topic = "the-configuration-is-wrong"
	TopicUplink         Topic = "an-uplink-cannot-be-used"
	TopicContainerEnded Topic = "a-container-ends-again-and-again"
	TopicCgroups        Topic = "containers-cannot-be-limited"
)

// Topics are all of them.
var Topics = []Topic{
	TopicInvalid, TopicNotFound, TopicConflict, TopicForbidden, TopicUnavailable, TopicNotImplemented, TopicInternal,
	TopicNoDaemon, TopicDaemonEnded, TopicDaemonHangs, TopicOtherDaemon, TopicOtherVersion, TopicFault, TopicUsage,
	TopicCommand, TopicNamespaces, TopicTUN, TopicPing, TopicMachine, TopicPortTaken, TopicPortLow, TopicPortBind,
	TopicNames, TopicRefused, TopicRights, TopicHostLoopback, TopicFrames, TopicLimits, TopicFiles, TopicCluster,
	TopicState, TopicConfiguration, TopicUplink, TopicContainerEnded, TopicCgroups,
}

var classTopics = map[error]Topic{
	ErrInvalid:        TopicInvalid,
	ErrNotFound:       TopicNotFound,
	ErrConflict:       TopicConflict,
	ErrForbidden:      TopicForbidden,
	ErrUnavailable:    TopicUnavailable,
	ErrNotImplemented: TopicNotImplemented,
}

// about is an error with a topic.
type about struct {
	topic Topic
	err   error
}

func (a *about) Error() string { return a.err.Error() }
func (a *about) Unwrap() error { return a.err }

// TopicOf is that of an error, for types that know theirs.
func (a *about) TopicOf() Topic { return a.topic }

// About gives an error a topic of its own. Where causes have others, the outermost counts. nil stays nil.
func About(t Topic, err error) error {
	if err == nil {
		return nil
	}
	return &about{t, err}
}

// TopicOf is the topic of an error: the outermost that was given, else that of its class, TopicInternal for one
// without.
func TopicOf(err error) Topic {
	var given interface{ TopicOf() Topic }
	if errors.As(err, &given) {
		return given.TopicOf()
	}
	if t, ok := classTopics[errdefs.Resolve(err)]; ok {
		return t
	}
	return TopicInternal
}
