package test

import "testing"

// attacks are attempts that once worked, each repeated as it was done. SECURITY.md says what must hold.
var attacks = []struct {
	number string
	what   string
	run    func(*testing.T)
}{
	{"V1", "the executable of a sandbox's init has its mode changed, is written to and is replaced", attackExecutable},
	{"V2, V11", "what enters a sandbox is traced, with the host's processes in sight", attackEntering},
	{"V2", "the caller's /proc in a nested root file system, and the host through the processes that enter", attackCallersProc},
	{"V3", "a connection to a peer that does not read, and its container ends", attackStalledOutbound},
	{"V3b", "the same by a client of a published port", attackStalledPublished},
	{"V4", "what is below /sys, /proc and /dev, once they are unmounted", attackUnmount},
	{"V5", "terminals, shared memory and devices of the host's in /dev", attackDevices},
	{"V6", "a hosts file of 3 GB, one without permissions, and a disk filled through it", attackHostsFile},
	{"V7", "a SYN whose data offset is 0, from a port without the guard", attackMalformedTCP},
	{"V8", "containers make the replies of their DNS stubs unsendable, and hold all questions to the outside", attackHeldDNSReplies},
	{"V10", "a container with the caller's files connects itself to an open network", attackAPIFromInside},
	{"V10b", "a container has the API's socket under another name", attackAPISocketElsewhere},
	{"V10c", "an attached container asks the API for an open network", attackAPIFromAttached},
	{"V11", "the host's processes below the /proc of a container with the caller's files", attackProcOfTheHost},
	{"V12", "descriptors and a working directory of the caller's lead out of a root file system", attackDescriptors},
	{"V13", "one container opens more connections than there are descriptors", attackBudgetOfDescriptors},
	{"V14", "one container opens 400 connections through its gateway that it does not read", attackBudgetOfMemory},
	{"V15", "published ports and services of the host at gateways' addresses, under --egress deny; metadata services", attackHairpin},
	{"V16", "links in a root file system that lead out of it", attackRootfsLinks},
	{"V17", "a git tag whose text is a shell command, in make and the scripts", attackHostileTag},
	{"V18", "a damaged store, which made the daemon panic at its start", attackDamagedStore},
}

func TestAttacks(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.number+" "+a.what, a.run)
	}
}
