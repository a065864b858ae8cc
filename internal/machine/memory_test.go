package machine

import (
	"testing"
	"testing/fstest"
)

func TestMemory(t *testing.T) {
	const meminfo = "MemTotal:        4000000 kB\nMemFree:          100000 kB\n"
	for _, test := range []struct {
		name    string
		files   map[string]string
		bytes   int64
		limited bool
	}{
		{"nothing is known", nil, 0, false},
		{"the machine's", map[string]string{"proc/meminfo": meminfo}, 4000000 << 10, false},
		{"no limit", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/user.slice/a.service\n",
			"sys/fs/cgroup/user.slice/a.service/memory.max": "max\n",
		}, 4000000 << 10, false},
		{"the service's limit", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/user.slice/a.service\n",
			"sys/fs/cgroup/user.slice/a.service/memory.max": "700000000\n",
		}, 700000000, true},
		{"the slice's limit, which is lower", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/user.slice/a.service\n",
			"sys/fs/cgroup/user.slice/a.service/memory.max": "700000000\n",
			"sys/fs/cgroup/user.slice/memory.max":           "600000000\n",
		}, 600000000, true},
		{"a container's own, at the root", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "500000000\n",
		}, 500000000, true},
		{"more than the machine has", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "900000000000\n",
		}, 4000000 << 10, false},
		{"version 1", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/docker/x\n",
			"sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "400000000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":          "9223372036854771712\n",
		}, 400000000, true},
		{"version 1 without a limit", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "5:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 4000000 << 10, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, text := range test.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			bytes, limited := memory(root)
			if bytes != test.bytes || limited != test.limited {
				t.Errorf("Memory is %d, %t; want %d, %t", bytes, limited, test.bytes, test.limited)
			}
		})
	}
}

func TestMemoryOfThisMachine(t *testing.T) {
	if n, _ := Memory(); n < 16<<20 {
		t.Errorf("this machine has %d bytes", n)
	}
}
