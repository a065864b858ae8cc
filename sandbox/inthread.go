package sandbox

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// configureHere carries out r in the namespace t by a thread of this process that enters it, and ends with that. It
// works where this process has power over the namespace as it is: in the user namespace that owns it, as Podman starts
// its network programs. That saves a program's start, most of what such a call takes. did is false where it cannot be
// done so; nothing has been done then.
func configureHere(t Target, r Request) (reply *Reply, did bool, err error) {
	if r.DNSStub.IsValid() || r.NoDNSStub || len(r.Listen) > 0 || len(r.Try) > 0 {
		return nil, false, nil // these ask /proc/self what is in their namespace, which is that of the process
	}
	namespaces, err := t.open()
	if err != nil {
		return nil, false, err
	}
	defer closeAll(namespaces)
	if len(namespaces) != 1 {
		return nil, false, nil // there is a user namespace to be entered
	}
	type outcome struct {
		files []namedFile
		did   bool
		err   error
	}
	done := make(chan outcome)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if unix.Setns(int(namespaces[0].Fd()), unix.CLONE_NEWNET) != nil {
			done <- outcome{}
			return
		}
		files, err := carryOut(r)
		done <- outcome{files, true, err}
	}()
	o := <-done
	if !o.did || o.err != nil {
		return nil, o.did, o.err
	}
	var names []string
	var files []*os.File
	for _, f := range o.files {
		names = append(names, f.name)
		files = append(files, f.file)
	}
	reply, err = sortFiles(names, files)
	return reply, true, err
}
