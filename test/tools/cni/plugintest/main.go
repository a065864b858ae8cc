// Command plugintest calls a CNI plugin by the test helpers of the plugins' project (pkg/testutils), as that project's
// own tests call theirs: ADD, whose result has to be of the configuration's version, STATUS, CHECK and DEL.
//
//	plugintest PLUGIN NETNS CONTAINER-ID <CONFIGURATION
//
// It prints the result of ADD.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/testutils"
)

const ifname = "eth0"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "plugintest:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return errors.New("give PLUGIN NETNS CONTAINER-ID, and the configuration as standard input")
	}
	plugin, netns, id := args[0], args[1], args[2]
	conf, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	// The helpers say in the environment what to do, and read what is written to os.Stdout.
	call := func() error {
		var said bytes.Buffer
		cmd := exec.Command(plugin)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(conf), io.MultiWriter(os.Stdout, &said), os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w: %s", os.Getenv("CNI_COMMAND"), err, &said)
		}
		return nil
	}
	result, raw, err := testutils.CmdAdd(netns, id, ifname, conf, call)
	if err != nil {
		return err
	}
	if _, err := result.GetAsVersion("1.0.0"); err != nil {
		return fmt.Errorf("the result of ADD: %w", err)
	}
	fmt.Printf("%s\n", raw)
	if since, err := version.GreaterThanOrEqualTo(result.Version(), "1.1.0"); err != nil {
		return err
	} else if since { // the first version with it
		if err := testutils.CmdStatus(call); err != nil {
			return err
		}
	}
	if conf, err = withResult(conf, raw); err != nil {
		return err
	}
	if err := testutils.CmdCheck(netns, id, ifname, call); err != nil {
		return err
	}
	return testutils.CmdDel(netns, id, ifname, call)
}

// withResult is a configuration with the result of ADD, as CHECK and DEL get it.
func withResult(conf, result []byte) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(conf, &fields); err != nil {
		return nil, err
	}
	fields["prevResult"] = result
	return json.Marshal(fields)
}
