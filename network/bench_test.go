package network

import (
	"fmt"
	"path/filepath"
	"testing"
)

// BenchmarkThousandContainers measures what each change of a container costs where many are there: the list, which
// names and `ps` are made from, and a connection.
func BenchmarkThousandContainers(b *testing.B) {
	m, err := openAt(filepath.Join(b.TempDir(), "db"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	if _, _, err := m.CreateNetwork(NetworkSpec{Name: "mynet"}); err != nil {
		b.Fatal(err)
	}
	for i := range 1000 {
		if _, _, err := m.CreateContainer(ContainerSpec{
			Name:    fmt.Sprintf("c%d", i),
			Labels:  map[string]string{"a": "b"},
			Command: []string{"sleep"},
		}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			m.Containers()
		}
	})
	b.Run("connect and disconnect", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := m.Connect("mynet", "c7", EndpointSpec{}); err != nil {
				b.Fatal(err)
			}
			if _, _, err := m.Disconnect("mynet", "c7", false); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("create and remove", func(b *testing.B) {
		for b.Loop() {
			c, _, err := m.CreateContainer(ContainerSpec{})
			if err != nil {
				b.Fatal(err)
			}
			if err := m.RemoveContainer(c.ID); err != nil {
				b.Fatal(err)
			}
		}
	})
}
