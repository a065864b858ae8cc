#!/bin/bash
# Prints the path of a nerdctl (build.sh says how). A cold build is 3 minutes and a half of processor time.
exec "$(dirname "$0")/build.sh" nerdctl github.com/containerd/nerdctl/v2 github.com/containerd/nerdctl/v2/cmd/nerdctl
