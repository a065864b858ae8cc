package test

import (
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// smoke are the tests of `make smoke` (go test -short): together less than a minute, and each of them of a way that
// most users go. They have to be tests of this package, so that one that is renamed is not lost.
var smoke = []func(*testing.T){
	TestWorld,
	TestNetworkModes, TestExitStatus, TestDetachedLife,
	TestUserDefinedNetworkWithDocker,
	TestOutbound, TestHalfClose, TestBypassInbound, TestUDPPorts,
	TestCacheAndQuery, TestEgressPolicy, TestNoPathBetweenNetworks, TestForgedSourceAddressIsDropped,
	TestContainersSurviveACrashOfTheDaemon, TestTakeoverOfNobody,
	TestDaemonIsConfined,
}

// smokePattern is what go test -run is given for them.
func smokePattern() string {
	var names []string
	for _, f := range smoke {
		name := runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name()
		names = append(names, name[strings.LastIndex(name, ".")+1:])
	}
	return "^(" + strings.Join(names, "|") + ")$"
}
