// Command usernet-etcd speaks to etcd for a daemon whose cluster uses it: etcd's client costs more at the start of a
// program than all of usernet (package stores). `make build` carries it inside of usernet (cmd/usernet/embedded).
// Nobody runs it by hand.
package main

import (
	"fmt"
	"os"

	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/kv/etcd"
	"github.com/usernet/usernet/overlay/kv/stores"
)

func main() {
	if err := stores.Serve(func(l kv.Location) (kv.Store, error) { return etcd.New(l) }); err != nil {
		fmt.Fprintln(os.Stderr, "usernet-etcd:", err)
		os.Exit(1)
	}
}
