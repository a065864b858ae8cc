package forwarder

import (
	"io"
	"testing"
)

// BenchmarkStream measures how fast one connection moves bytes in each path, from the container to the host and back.
func BenchmarkStream(b *testing.B) {
	for _, pair := range pairs {
		for _, way := range []string{"out", "in"} {
			b.Run(pair.name+"/"+way, func(b *testing.B) {
				from, to := pair.make(b, newWorld(b, nil))
				if way == "in" {
					from, to = to, from
				}
				defer from.Close()
				defer to.Close()
				piece, got := make([]byte, 64<<10), make(chan error, 1)
				b.SetBytes(int64(len(piece)))
				go func() {
					_, err := io.CopyN(io.Discard, to, int64(b.N*len(piece)))
					got <- err
				}()
				b.ResetTimer()
				for range b.N {
					if _, err := from.Write(piece); err != nil {
						b.Fatal(err)
					}
				}
				if err := <-got; err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
