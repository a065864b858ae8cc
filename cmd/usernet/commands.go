package main

import "github.com/spf13/cobra"

// makers are what makes each command, by its name.
func makers() map[string]func() *cobra.Command {
	return map[string]func() *cobra.Command{
		"attach":        attachCommand,
		"capture":       captureCommand,
		"check":         checkCommand,
		"cluster":       clusterCommand,
		"config":        configCommand,
		"dashboard":     dashboardCommand,
		"detach":        detachCommand,
		"dns":           dnsCommand,
		"doctor":        doctorCommand,
		"docker-plugin": dockerPluginCommand,
		"events":        func() *cobra.Command { return eventsCommand("") },
		"exec":          execCommand,
		"explain":       explainCommand,
		"extcap":        extcapCommand,
		"flows":         flowsCommand,
		"gvproxy": func() *cobra.Command {
			return placeCommand("gvproxy", "[OPTION]...", "Take the place of gvproxy: a virtual machine on a network")
		},
		"info":      infoCommand,
		"inspect":   inspectCommand,
		"integrate": integrateCommand,
		"kill":      killCommand,
		"logs":      logsCommand,
		"man":       manCommand,
		"monitor":   monitorCommand,
		"netavark": func() *cobra.Command {
			return placeCommand(
				"netavark",
				"info|create|setup NETNS|teardown NETNS",
				"Serve Podman's networks of the driver usernet",
			)
		},
		"network":  networkCommand,
		"oci-hook": ociHookCommand,
		"pasta": func() *cobra.Command {
			return placeCommand("pasta", "[OPTION]... PID|--netns PATH", "Take the place of pasta")
		},
		"port":   portCommand,
		"ps":     psCommand,
		"rename": renameCommand,
		"rm":     rmCommand,
		"rootlessport": func() *cobra.Command {
			return placeCommand("rootlessport", "< CONFIG", "Take the place of Podman's rootlessport")
		},
		"restart":  restartCommand,
		"run":      runCommand,
		"serve":    serveCommand,
		"shutdown": shutdownCommand,
		"slirp4netns": func() *cobra.Command {
			return placeCommand("slirp4netns", "[OPTION]... PID|PATH|FD [TAPNAME]", "Take the place of slirp4netns")
		},
		"start":   startCommand,
		"starter": starterCommand,
		"stats":   statsCommand,
		"stop":    stopCommand,
		"update":  updateCommand,
		"uplink":  uplinkCommand,
		"top":     topCommand,
		"trace":   traceCommand,
		"version": versionCommand,
		"wait":    waitCommand,
	}
}
