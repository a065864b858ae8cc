package main

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// resourceFlags are the flags of run and update about what a container may use. Their forms are Docker's.
type resourceFlags struct{ network.Resources }

func (r *resourceFlags) add(f *pflag.FlagSet) {
	f.VarP(byteAmount{&r.Memory, false}, "memory", "m", "memory that it may use, such as 512m; 6m at least")
	f.Var(byteAmount{&r.MemorySwap, true}, "memory-swap",
		"memory and swap together (twice the memory); -1: as much swap as there is")
	f.Var(cpuCount{&r.NanoCPUs}, "cpus", "processors that it may use, such as 1.5")
	f.Int64Var(&r.PidsLimit, "pids-limit", 0, "processes and threads that it may have; -1: any number")
	countBetween(f, "pids-limit", -1, maxPid, "-1: any number")
}

// byteAmount is a flag's number of bytes.
type byteAmount struct {
	n         *int64
	unlimited bool // -1 may be given
}

// String is the number.
func (a byteAmount) String() string {
	if a.n == nil || *a.n == 0 {
		return ""
	}
	return units.BytesSize(float64(*a.n))
}

// Set reads one.
func (a byteAmount) Set(s string) error {
	if a.unlimited && s == "-1" {
		*a.n = -1
		return nil
	}
	n, err := units.RAMInBytes(s)
	if err != nil || n < 0 || n > mostBytes { // what is too large for 64 bits is negative, on some machines
		return fmt.Errorf("invalid size: %q: give a number of bytes like 512m or 1.5GiB", s)
	}
	*a.n = n
	return nil
}

// Type is what help calls it.
func (byteAmount) Type() string { return "bytes" }

// cpuCount is a flag's number of processors, in units of 10⁻⁹.
type cpuCount struct{ nano *int64 }

// String is the number.
func (c cpuCount) String() string {
	if c.nano == nil || *c.nano == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(*c.nano)/1e9, 'f', -1, 64)
}

// Set reads one. The texts are Docker's.
func (c cpuCount) Set(s string) error {
	n, ok := new(big.Rat).SetString(s)
	if !ok {
		return errors.New("failed to parse " + s + " as a rational number")
	}
	if n.Mul(n, big.NewRat(1e9, 1)); !n.IsInt() || !n.Num().IsInt64() {
		return errors.New("value is too precise")
	}
	*c.nano = n.Num().Int64()
	return nil
}

// Type is what help calls it.
func (cpuCount) Type() string { return "number" }

func updateCommand() *cobra.Command {
	var r resourceFlags
	var restart string
	var labels, remove []string
	var e egressFlags
	c := each("update CONTAINER...", "Change limits, restart policy, labels and egress rules of containers",
		func(c *cobra.Command, cl *api.Client, ref string) error {
			if c.Flags().NFlag() == 0 {
				return errors.New("you must provide one or more flags when using this command")
			}
			q := api.UpdateRequest{Resources: r.Resources, Labels: keyValues(labels), RemoveLabels: remove}
			q.Egress, q.AllowEgress = e.given(c.Flags())
			if restart != "" {
				policy, err := network.ParseRestartPolicy(restart)
				if err != nil {
					return err
				}
				q.Restart = &policy
			}
			return cl.ContainerUpdate(c.Context(), ref, q)
		})
	r.add(c.Flags())
	e.add(c.Flags())
	c.Flags().StringArrayVar(&labels, "label-add", nil, "add or replace a label: KEY=VALUE")
	c.Flags().StringArrayVar(&remove, "label-rm", nil, "remove a label by its key")
	c.Flags().StringVar(&restart, "restart", "",
		"when it runs again after its end: no, on-failure[:N], always, unless-stopped")
	return c
}
