// Package capture writes the frames of endpoints as pcapng (draft-ietf-opsawg-pcapng), and reads such a stream to put
// it into files.
//
// The central idea: who shows a frame never waits. A Recorder copies a frame that its filter wants into a queue of
// bounded size, and counts it as lost where that is full; one goroutine, Recorder.Run, writes the queue to the client
// that reads, however slowly. Each endpoint is an interface of the capture, with its container's name, and its counts
// of frames received and lost are in the stream (Interface Statistics Blocks), once a second and at the end.
//
//	r := capture.New(capture.Config{Filter: f})
//	web := r.Endpoint(capture.Interface{Container: "web", Network: "mynet"})
//	stop := network.Capture(..., func(...) { web.Frame(out, ethernet, payload) })
//	err := r.Run(ctx, w, flush)
//
// The daemon records; the commands read (Copy). The package knows no switch, daemon or API. It never blocks in Frame,
// and never keeps more than Config.Queue bytes of frames.
package capture
