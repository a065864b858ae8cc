// Package sockio has what several packages do with sockets and descriptors below package net.
//
// A [Reactor] watches any number of sockets with one goroutine (epoll(7)) and calls a [Handler] for each that is ready.
// A [Socket] owns a descriptor that handlers and others use at once; a [Conn] is a TCP socket in the Go runtime's
// poller, for those who wait. Datagrams are read ([Socket.ReceiveAll], recvmmsg(2)) and sent ([SendSegments],
// [TXBatch]) several at a time, which is UDP_GRO and UDP_SEGMENT where the kernel has them, and nothing is allocated
// for it. [Socket.ReadErrors] reads the ICMP errors that answer them. [WriteRights] and [ReadRights] pass descriptors
// over a Unix socket (unix(7), SCM_RIGHTS), [Dup] copies one.
//
//	r, err := sockio.NewReactor()
//	defer r.Close()
//	var s sockio.Socket
//	s.Open(fd)             // s owns fd from here
//	err = r.Add(fd, h)     // h.HandleEvents reads with s.ReceiveAll
//	s.Close(r)
//	r.Barrier()            // h does not run any more
//
// Raw system calls and the kernel's structures stay in send.go, receive.go and addr.go. Every descriptor that the
// package returns is closed on exec, and is the caller's. It knows nothing of containers and keeps no state but pools
// of buffers.
package sockio
