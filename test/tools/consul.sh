#!/bin/bash
# Prints the path of a Consul server (build.sh says how). A cold build is 6 to 8 minutes of processor time.
exec "$(dirname "$0")/build.sh" consul github.com/hashicorp/consul
