package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/runtimes/vm"
)

// vmFlags say where a virtual machine is.
type vmFlags struct {
	socket, connect string
}

func (v *vmFlags) add(f *pflag.FlagSet) {
	f.StringVar(&v.socket, "vm-socket", "", "a Unix socket for a virtual machine, to be made: PATH, or unix://PATH, "+
		"for frames behind their length (qemu -netdev stream); unixgram://PATH for datagrams (qemu -netdev dgram, vfkit); "+
		"unixpacket://PATH for records")
	f.StringVar(&v.connect, "vm-connect", "", "the same where the virtual machine listens (qemu's server=on)")
}

func (v *vmFlags) given() bool { return v.socket != "" || v.connect != "" }

// attach makes a container of the virtual machine, and the link by which it finds the daemon's socket.
func (v *vmFlags) attach(c *cobra.Command, q api.AttachRequest) error {
	if v.socket != "" && v.connect != "" {
		return errors.New("--vm-socket and --vm-connect exclude each other: give --vm-socket where usernet makes the " +
			"socket, or --vm-connect where the virtual machine does")
	}
	at, err := vm.ParseSocket(v.socket + v.connect)
	if err != nil {
		return err
	}
	at.Connect = v.connect != ""
	q.Spec.VM = at
	cl, err := startedClient(c.Context())
	if err != nil {
		return err
	}
	made, err := vm.Attach(c.Context(), cl, q)
	if err != nil {
		return err
	}
	fmt.Println(made.ID)
	return nil
}
