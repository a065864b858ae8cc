package network

import (
	"fmt"
	"regexp"
	"slices"
	"sync"

	"github.com/usernet/usernet/internal/errdefs"
)

// interfaceForm is the form of names that the kernel accepts (dev_valid_name in net/core/dev.c), without colons.
var interfaceForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[^/:\s]{1,15}$`)
})

// interfaceName is the name of a new interface in c: the one that was asked for, or a free one.
func interfaceName(c *Container, n *Network, want string) (string, error) {
	switch {
	case want == "":
		return freeInterface(c, n), nil
	case checkInterface(want) != nil:
		return "", checkInterface(want)
	case slices.ContainsFunc(c.Endpoints, func(e *Endpoint) bool { return e.Interface == want }):
		return "", errdefs.Conflict("container %s has an interface %s already", c.Name, want)
	}
	return want, nil
}

// checkInterface refuses a name that no interface can have.
func checkInterface(name string) error {
	if name == "lo" {
		return errdefs.Invalid("invalid interface name %q: it is the loopback interface's", name)
	}
	if !interfaceForm().MatchString(name) || name == "." || name == ".." {
		return errdefs.Invalid(
			"invalid interface name %q: give up to 15 characters without spaces, slashes and colons", name)
	}
	return nil
}

func freeInterface(c *Container, n *Network) string {
	prefix := n.Settings().InterfacePrefix
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s%d", prefix, i)
		if !slices.ContainsFunc(c.Endpoints, func(e *Endpoint) bool { return e.Interface == name }) {
			return name
		}
	}
}
