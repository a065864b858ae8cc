// Package stores has the tests of package kv's adapters against the real servers: etcd, Consul and ZooKeeper, started
// as the ordinary user that runs the tests, on ports of the loopback. `make stores` runs them; without it they do
// nothing.
package stores
