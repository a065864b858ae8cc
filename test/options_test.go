package test

import (
	"fmt"
	"strings"
	"testing"
)

func TestNetworkOptions(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart")
	d.idle("a1", "--network", "apart")
	d.idle("a2", "--network", "apart")
	if r := d.exec("a1", "ping", "-c1", "-W2", d.address("a2")); r.code == 0 {
		t.Errorf("without inter-container connectivity they reach each other: %v", r)
	}
	d.says(" 0% packet loss", "a1", "ping", "-c1", "-W5", d.gateway("a1"))
	d.says(" 0% packet loss", "a1", "ping", "-c1", "-W5", peer4)

	d.ok("network", "create", "-o", "com.docker.network.bridge.enable_ip_masquerade=false", "bare")
	port := freePort()
	d.serve("b1", []string{"--network", "bare", "-p", fmt.Sprintf("%d:80", port)}, helper, "tcpserve", ":80", "addr")
	if out := atPeer(t, fmt.Sprintf("%s tcpdial %s:%d", helper, host4, port)); !strings.HasPrefix(out, "ok") {
		t.Errorf("without masquerading the published port does not work: %q", out)
	}
	if r := d.exec("b1", "ping", "-c1", "-W2", peer4); r.code == 0 {
		t.Errorf("without masquerading there is a way out: %v", r)
	}

	d.ok("network", "create", "-o", "com.docker.network.driver.mtu=1280", "-o",
		"com.docker.network.container_iface_prefix=lan", "named")
	d.idle("c1", "--network", "named")
	d.ok("network", "connect", "apart", "c1")
	out := d.exec("c1", "ip", "-o", "link").stdout
	for _, want := range []string{"lan0", "mtu 1280", "eth0", "mtu 1500"} {
		if !strings.Contains(out, want) {
			t.Errorf("the interfaces lack %s: %s", want, out)
		}
	}
	d.ok("network", "disconnect", "named", "c1")
	if err := d.lacksInterface("c1", "lan0"); err != nil {
		t.Error(err)
	}
}

// TestTranscriptOnTheDefaultBridge is the first of Docker's transcripts with usernet in the sandboxes' places.
func TestTranscriptOnTheDefaultBridge(t *testing.T) {
	eachDocker(t, func(t *testing.T, d *daemon) {
		d.idle("tomcat81")
		d.idle("tomcat82")
		one, two := d.address("tomcat81"), d.address("tomcat82")
		if one != "172.17.0.2" || two != "172.17.0.3" {
			t.Errorf("addresses are %s and %s", one, two)
		}
		d.says(" 0% packet loss", "tomcat81", "ping", "-c1", "-W5", two)
		d.says(" 0% packet loss", "tomcat82", "ping", "-c1", "-W5", one)
		for from, to := range map[string]string{"tomcat81": "tomcat82", "tomcat82": "tomcat81"} {
			if r := d.exec(from, "ping", "-c1", "-W2", to); r.code == 0 {
				t.Errorf("names resolve on the default bridge: %v", r)
			}
		}
		d.ok("rm", "-f", "tomcat82")
		d.idle("tomcat82", "--link", "tomcat81")
		d.says(" 0% packet loss", "tomcat82", "ping", "-c1", "-W5", "tomcat81")
		if r := d.exec("tomcat81", "ping", "-c1", "-W2", "tomcat82"); r.code == 0 {
			t.Errorf("the link works backwards: %v", r)
		}
		d.says(one+"\ttomcat81 ", "tomcat82", "cat", "/etc/hosts")
		d.dockerSays("[tomcat81:tomcat81]", "inspect", "-f", "{{.HostConfig.Links}}", "tomcat82")
		d.dockerSays("map[tomcat81:172.17.0.2/16 tomcat82:172.17.0.3/16]", "network", "inspect", "-f",
			"map[{{range .Containers}}{{if eq .Name \"tomcat81\"}}{{.Name}}:{{.IPv4Address}}{{end}}{{end}} {{range .Containers}}{{if eq .Name \"tomcat82\"}}{{.Name}}:{{.IPv4Address}}{{end}}{{end}}]", "bridge")
	})
}
