package network

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/google/btree"
)

// Term is something by which containers are found without going through all of them.
type Term struct {
	kind  termKind
	value string
}

type termKind uint8

const (
	kindNetworkID termKind = iota // of networks, by all of the id or the beginning of it
	kindNetworkName
	kindID
	kindName
	kindKey
	kindVMPath
	kindNetNS
	kindSharing
	kindNetwork
	kindEndpoint
	kindInLife
	kindClosed
	kindAttachedClosed
)

// NotEnded are the containers that have not ended.
var NotEnded = Term{kind: kindInLife}

// ClosedAnywhere are the containers that ClosedIn is for, of all user namespaces, and AttachedClosedAnywhere those that
// AttachedClosedIn is for.
var (
	ClosedAnywhere         = Term{kind: kindClosed}
	AttachedClosedAnywhere = Term{kind: kindAttachedClosed}
)

// WithKey are the attached containers that have an endpoint with a key.
func WithKey(key string) Term { return Term{kindKey, key} }

// WithVMPath are the virtual machines whose socket is at a path.
func WithVMPath(path string) Term { return Term{kindVMPath, path} }

// InNetNS are the containers that stand for a network namespace.
func InNetNS(id NamespaceID) Term { return Term{kindNetNS, id.key()} }

// SharingWith are the containers that use the network of the one with an id.
func SharingWith(id string) Term { return Term{kindSharing, id} }

// OnNetwork are the containers with an endpoint on the network with an id.
func OnNetwork(id string) Term { return Term{kindNetwork, id} }

// WithEndpoint is the container with an endpoint.
func WithEndpoint(id string) Term { return Term{kindEndpoint, id} }

// ClosedIn are the containers that usernet runs in a user namespace and that may not use the API.
func ClosedIn(userns NamespaceID) Term { return Term{kindClosed, userns.key()} }

// AttachedClosedIn are the attached containers whose network namespace belongs to a user namespace, and that may not
// use the API.
func AttachedClosedIn(userns NamespaceID) Term { return Term{kindAttachedClosed, userns.key()} }

func (id NamespaceID) key() string {
	return strconv.FormatUint(id.Dev, 10) + ":" + strconv.FormatUint(id.Ino, 10)
}

// terms are those by which c is found.
func (c *Container) terms() []Term {
	list := []Term{{kindID, c.ID}, {kindName, c.Name}}
	add := func(is bool, t Term) {
		if is {
			list = append(list, t)
		}
	}
	owner, shares := strings.CutPrefix(c.NetworkMode, "container:")
	add(shares, SharingWith(owner))
	add(c.IsVM(), WithVMPath(c.VM.Path))
	add(c.NetNSID != NamespaceID{}, InNetNS(c.NetNSID))
	for _, e := range c.Endpoints {
		list = append(list, OnNetwork(e.NetworkID), WithEndpoint(e.ID))
		add(c.Attached && e.Key != "", WithKey(e.Key))
	}
	if c.Status == Exited {
		return list
	}
	list = append(list, NotEnded)
	switch {
	case c.ShareAPI || c.IsVM(): // what runs in a virtual machine is no process of this machine
	case c.Attached:
		list = append(list, AttachedClosedAnywhere, AttachedClosedIn(c.UserNSID))
	case c.UserNSID != NamespaceID{}:
		list = append(list, ClosedAnywhere, ClosedIn(c.UserNSID))
	}
	return list
}

// terms are those by which n is found.
func (n *Network) terms() []Term { return []Term{{kindNetworkID, n.ID}, {kindNetworkName, n.Name}} }

// posting says that a term is one of the record with an id.
type posting struct {
	Term
	id string
}

func (p posting) less(o posting) bool {
	return cmp.Or(cmp.Compare(p.kind, o.kind), cmp.Compare(p.value, o.value), cmp.Compare(p.id, o.id)) < 0
}

// postings are the terms of all records, in order. Make it with newPostings.
type postings struct{ tree *btree.BTreeG[posting] }

func newPostings() postings { return postings{btree.NewG(32, posting.less)} }

func (p postings) add(id string, terms []Term) {
	for _, t := range terms {
		p.tree.ReplaceOrInsert(posting{t, id})
	}
}

func (p postings) remove(id string, terms []Term) {
	for _, t := range terms {
		p.tree.Delete(posting{t, id})
	}
}

// each calls f with the ids of the records that have a term, until it returns false.
func (p postings) each(t Term, f func(id string) bool) {
	p.tree.AscendGreaterOrEqual(posting{Term: t}, func(x posting) bool { return x.Term == t && f(x.id) })
}

// first is the id of the first record that has a term; "": there is none.
func (p postings) first(t Term) (id string) {
	p.each(t, func(found string) bool { id = found; return false })
	return id
}

// prefixed are the ids of the records of a kind whose value begins with a text; none for the empty one.
func (p postings) prefixed(kind termKind, prefix string) (ids []string) {
	p.tree.AscendGreaterOrEqual(posting{Term: Term{kind, prefix}}, func(x posting) bool {
		if prefix == "" || x.kind != kind || !strings.HasPrefix(x.value, prefix) {
			return false
		}
		ids = append(ids, x.id)
		return true
	})
	return ids
}

// records are what the model has in memory: networks and containers, which are never changed but replaced, and what
// is found of them without going through all. Make it with newRecords.
type records struct {
	networks   map[string]*Network   // by id
	containers map[string]*Container // by id; without their ports
	ports      map[string]*published // by id of a container; those without any are left out
	postings   postings
	addresses  map[string]*addresses // by a network's id, also one that is gone
}

func newRecords() *records {
	return &records{
		networks: map[string]*Network{}, containers: map[string]*Container{},
		ports: map[string]*published{}, postings: newPostings(), addresses: map[string]*addresses{},
	}
}

// setNetwork adds a network, replaces the one with its id, or with nil removes that.
func (r *records) setNetwork(id string, n *Network) {
	if old := r.networks[id]; old != nil {
		r.postings.remove(id, old.terms())
		delete(r.networks, id)
	}
	if n != nil {
		r.networks[id] = n
		r.postings.add(id, n.terms())
		r.addressesOf(id).setPools(n.Pools)
	} else if a := r.addresses[id]; a != nil {
		a.setPools(nil)
		r.dropIfUnused(id)
	}
}

// setContainer does the same for a container.
func (r *records) setContainer(id string, c *Container) {
	if old := r.containers[id]; old != nil {
		r.postings.remove(id, old.terms())
		delete(r.containers, id)
		r.eachAddress(old, (*addresses).drop, (*addresses).dropMAC)
		for _, e := range old.Endpoints {
			r.addressesOf(e.NetworkID).noteChange(id)
			r.dropIfUnused(e.NetworkID)
		}
	}
	if c == nil {
		delete(r.ports, id)
	} else {
		r.containers[id] = c
		r.postings.add(id, c.terms())
		r.eachAddress(c, (*addresses).take, (*addresses).takeMAC)
		for _, e := range c.Endpoints {
			r.addressesOf(e.NetworkID).noteChange(id)
			r.dropIfUnused(e.NetworkID)
		}
	}
}
