package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/runtimes/client"
	"github.com/usernet/usernet/sandbox"
)

// callLimit bounds a hook: the runtime waits for it.
const callLimit = 30 * time.Second

// daemon is what a hook needs of usernet's; *api.Client has it.
type daemon interface {
	Attach(ctx context.Context, q api.AttachRequest, netns *os.File) (api.AttachReply, error)
	Detach(ctx context.Context, key string) error
	DetachLater(key string) error
}

// A Hook is one call by a runtime.
type Hook struct {
	Stage  string // as the configuration's hooks name it
	Socket string // of the daemon; "": the environment says it, where that can be believed
	State  io.Reader
	Getenv func(string) string
	Stderr io.Writer // for warnings

	open func(socket string, getenv func(string) string) (daemon, error) // nil: client.New
}

// Stages are those that a hook can be called in.
var Stages = []string{"createRuntime", "createContainer", "prestart", "poststop"}

// Run does what the stage is for. A container without the annotation is none of usernet's business. An error in a stage
// before the start has the runtime give the container up.
func (h Hook) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	state, err := readState(h.State)
	if err != nil {
		return err
	}
	if state.Annotations["usernet.network"] == "" {
		return nil
	}
	d, err := h.daemon()
	if err != nil {
		return err
	}
	key := "oci/" + state.ID
	switch h.Stage {
	case "createRuntime", "prestart":
		q := api.AttachRequest{Key: key, Holder: state.Pid}
		return attach(ctx, d, q, fmt.Sprintf("/proc/%d/ns/net", state.Pid), state)
	case "createContainer": // called by the container's first process; its pid here is none of the daemon's
		q := api.AttachRequest{Key: key, ParentHolds: true}
		return attach(ctx, d, q, "/proc/self/ns/net", state)
	case "poststop":
		return client.Detach(ctx, d, key, h.Stderr)
	}
	return fmt.Errorf("stage %q: a hook can be called in %v", h.Stage, Stages)
}

// daemon finds it. In createContainer the environment may be what the image says.
func (h Hook) daemon() (daemon, error) {
	getenv := h.Getenv
	if h.Stage == "createContainer" {
		if h.Socket == "" {
			return nil, errors.New(
				"in createContainer the environment may be the image's: give the daemon's socket in the hook's arguments, " +
					"as in --host unix:///run/user/1000/usernet/usernet.sock",
			)
		}
		getenv = func(string) string { return "" }
	}
	if h.open != nil {
		return h.open(h.Socket, getenv)
	}
	return client.New(h.Socket, getenv)
}

// attach connects the namespace at path as annotations say, until the container's first process ends: a runtime that is
// killed calls no poststop. Nothing is left of it where it fails.
func attach(ctx context.Context, d daemon, q api.AttachRequest, path string, state *specs.State) error {
	spec, err := container(state.ID, state.Annotations)
	if err != nil {
		return err
	}
	config, err := readConfig(state.Bundle)
	if err != nil {
		return err
	}
	spec.Hostname = config.Hostname
	netns, err := sandbox.OpenNetNS(path)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf(
			"network namespace: %w: this runtime's containers cannot be looked into from outside; call the hook in createContainer",
			err,
		)
	}
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer netns.Close()
	q.Spec = spec
	made, err := d.Attach(ctx, q, netns)
	if err != nil {
		return err
	}
	err = errors.Join(writeFile(state.Bundle, config, "/etc/resolv.conf", made.Files.ResolvConf),
		writeFile(state.Bundle, config, "/etc/hosts", made.Files.Hosts))
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
		defer cancel()
		return errors.Join(err, d.Detach(undo, q.Key))
	}
	return nil
}
