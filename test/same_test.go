package test

import (
	"fmt"
	"testing"
)

// TestSameOutputAsDocker runs commands with the newest docker CLI and with usernet against the same daemon.
func TestSameOutputAsDocker(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.dockerCLI = dockerClients(t)[0]
	d.ok("network", "create", "--label", "team=a", "--label", "zone=b", "--ipv6", "mynet")
	d.ok("network", "create", "--internal", "--attachable", "inner")
	port := freePort()
	d.idle("web", "--network", "mynet", "-p", fmt.Sprintf("127.0.0.1:%d:80", port), "-p",
		fmt.Sprintf("%d:90/udp", freePort()), "--expose", "1000-1003",
		"--label", "tier=1", "--label", "app=x", "-e", "A=b", "--add-host", "a:1.2.3.4", "--hostname", "box")
	d.ok("network", "connect", "--alias", "other", "inner", "web")
	d.container("done", nil, "sh", "-c", "exit 4")
	d.ok("wait", "done")
	d.idle("hosted", "--network", "host")
	for _, args := range [][]string{
		{"network", "ls"},
		{"network", "ls", "--no-trunc"},
		{"network", "ls", "-q"},
		{"network", "ls", "-q", "--no-trunc", "-f", "type=custom"},
		{"network", "ls", "--format", "table {{.Name}}\t{{.IPv6}}\t{{.Internal}}\t{{.Label \"team\"}}"},
		{"network", "ls", "--format", "{{.ID}} {{.Driver}} {{.Scope}} {{.Label \"team\"}}"},
		{"network", "ls", "--format", "{{upper .Name}} {{json .Name}}"},
		{"network", "inspect", "-f", "{{json .IPAM}} {{json .Options}} {{.Created}} {{.Labels}}", "mynet", "inner",
			"host"},
		{"network", "inspect", "-f", "{{range $id, $c := .Containers}}{{$id}} {{$c.Name}} {{$c.IPv4Address}} {{$c.MacAddress}}{{end}}", "mynet"},
		{"network", "inspect", "-f", "{{range .Containers}}[{{.IPv6Address}}] {{.Name}}{{end}} {{range .IPAM.Config}}[{{.IPRange}}] {{.Gateway}}{{end}}", "inner"},
		{"ps", "--format", "{{.ID}} {{.Names}} {{.Command}} {{.Ports}} {{.State}}"},
		{"ps", "-a", "--format", "table {{.Names}}\t{{.Ports}}\t{{.State}}"},
		{"ps", "-aq"},
		{"ps", "-q", "--no-trunc"},
		{"ps", "-a", "--no-trunc", "--format", "{{.Command}} {{.CreatedAt}} {{.Size}} {{.LocalVolumes}} {{.Mounts}}"},
		{"ps", "-l", "-q"},
		{"ps", "-n", "2", "--format", "{{.Names}}"},
		{"ps", "--filter", "label=app=x", "--format", "{{.Label \"tier\"}}"},
		{"port", "web"},
		{"port", "web", "80"},
		{"inspect", "-f", "{{range $n, $e := .NetworkSettings.Networks}}{{$n}} {{$e.IPAddress}} {{$e.MacAddress}} {{$e.GlobalIPv6Address}} {{$e.DNSNames}} {{$e.Aliases}}\n{{end}}", "web"},
		{"inspect", "-f", "{{json .NetworkSettings.Ports}} {{json .Config.ExposedPorts}} {{.HostConfig.ExtraHosts}}", "web"},
		{"inspect", "-f", "{{.Id}} {{.Name}} {{.State.Status}} {{.State.ExitCode}} {{.Path}} {{.Args}}", "done"},
		{"inspect", "-f", "{{.Config.Hostname}} {{json .Config.Env}} {{.Config.Cmd}}", "web"},
		{"inspect", "--type", "network", "-f", "{{.Name}}", "host"},
		{"events", "--since", "1h", "--until=0s", "--filter", "container=done"},
		{"events", "--since", "1h", "--until=-1s", "--filter", "type=network", "--format", "{{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}}"},
	} {
		docker, ours := d.docker(args...), d.try(args...)
		if docker.code != ours.code || docker.stdout != ours.stdout {
			t.Errorf("docker and usernet differ:\n%v\n%v", docker, ours)
		}
	}
}
