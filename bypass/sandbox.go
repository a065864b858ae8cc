package bypass

import (
	"context"
	"errors"
	"fmt"

	"github.com/usernet/usernet/sandbox"
)

// order is a request to a factory: for sockets, or for a watch.
type order struct {
	Direction Direction
	IPv6      bool
	Count     int
	Watch     bool
}

// reply is the factory's answer; descriptors come with it.
type reply struct {
	Error string // why there are none
	Rules bool   // the container's rules are why (ErrContainerRules)
}

// InSandbox starts factories in the sandbox t, which helper enters. The program that runs there calls sandbox.Main with
// Role.
func InSandbox(helper *sandbox.Helper, t sandbox.Target) func(context.Context) (Factory, error) {
	return func(ctx context.Context) (Factory, error) {
		agent, err := helper.Enter(t, Role.Name)
		if err != nil {
			return nil, err
		}
		return &remoteFactory{agent, context.AfterFunc(ctx, agent.Kill)}, nil
	}
}

// remoteFactory is a factory in a process of its own.
type remoteFactory struct {
	agent *sandbox.Agent
	stop  func() bool
}

// Make implements Factory.
func (f *remoteFactory) Make(d Direction, ipv6 bool, count int) (fds []int, refused, err error) {
	return f.ask(order{Direction: d, IPv6: ipv6, Count: count})
}

// Watch implements Factory.
func (f *remoteFactory) Watch() (Watch, error) {
	fds, refused, err := f.ask(order{Watch: true})
	if err = errors.Join(refused, err); err != nil {
		return nil, err
	}
	return newWatch(fds), nil
}

func (f *remoteFactory) ask(o order) (fds []int, refused, err error) {
	if err := sandbox.SendMessage(f.agent.Conn, o, nil); err != nil {
		return nil, nil, fmt.Errorf("factory of sockets: %w", err)
	}
	var r reply
	if fds, err = sandbox.ReceiveMessage(f.agent.Conn, &r); err != nil {
		return nil, nil, fmt.Errorf("factory of sockets: %w", err)
	}
	switch {
	case r.Rules:
		refused = fmt.Errorf("%w: %s", ErrContainerRules, r.Error)
	case r.Error != "":
		refused = errors.New(r.Error)
	}
	return fds, refused, nil
}

// Close implements Factory.
func (f *remoteFactory) Close() {
	f.agent.Close()
	f.stop()
}
