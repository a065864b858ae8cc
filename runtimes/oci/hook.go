package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/runtimes/client"
)

// callLimit bounds a hook: the runtime waits for it.
const callLimit = 30 * time.Second

// daemon is what a hook needs of usernet's; *api.Client has it.
type daemon interface {
	Attach(ctx context.Context, q api.AttachRequest, netns *os.File) (api.AttachReply, error)
	Detach(ctx context.Context, key string) error
}

// A Hook is one call by a runtime.
type Hook struct {
	Stage  string // as the configuration's hooks name it
	Socket string // of the daemon; "": the environment says it, where that can be believed
	State  io.Reader
	Getenv func(string) string

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
		return attach(ctx, d, key, fmt.Sprintf("/proc/%d/ns/net", state.Pid), state.ID, state.Bundle, state.Annotations)
	case "createContainer":
		return attach(ctx, d, key, "/proc/self/ns/net", state.ID, state.Bundle, state.Annotations)
	case "poststop":
		return d.Detach(ctx, key)
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

// attach connects the namespace at path as annotations say. Nothing is left of it where it fails.
func attach(ctx context.Context, d daemon, key, path, id, bundle string, annotations map[string]string) error {
	spec, err := container(id, annotations)
	if err != nil {
		return err
	}
	config, err := readConfig(bundle)
	if err != nil {
		return err
	}
	spec.Hostname = config.Hostname
	netns, err := os.Open(path)
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
	made, err := d.Attach(ctx, api.AttachRequest{Key: key, Spec: spec}, netns)
	if err != nil {
		return err
	}
	err = errors.Join(writeFile(bundle, config, "/etc/resolv.conf", made.Files.ResolvConf),
		writeFile(bundle, config, "/etc/hosts", made.Files.Hosts))
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
		defer cancel()
		return errors.Join(err, d.Detach(undo, key))
	}
	return nil
}
