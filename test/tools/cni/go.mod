// The CNI project's command line client, and a program that calls a plugin by the test helpers of the plugins' project, for
// the tests of ours. It is a module of its own, so that what it needs is no dependency of usernet.
module github.com/usernet/usernet/test/tools/cni

go 1.26.3

tool github.com/containernetworking/cni/cnitool

require (
	github.com/containernetworking/cni v1.3.1
	github.com/containernetworking/plugins v1.7.1
)

require (
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/cobra v1.9.1 // indirect
	github.com/spf13/pflag v1.0.6 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	go.opentelemetry.io/otel v1.29.0 // indirect
	go.opentelemetry.io/otel/trace v1.29.0 // indirect
	golang.org/x/sys v0.32.0 // indirect
)
