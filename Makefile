# The habits of this repository. `make help` lists them.

# Nothing that git prints becomes a part of this file or of a command line: scripts/version.sh is asked by the shell that
# needs the version, and prints letters, digits and . _ + - only. VERSION in the environment overrides it.
PREFIX      ?= $(HOME)/.local
VULNDB      ?= https://vuln.go.dev
FUZZTIME    ?= 20s
BENCHFLAGS  ?=
TESTFLAGS   ?=
SIM         ?= -hosts 1000 -endpoints 100000 -span 1m
# Runs its arguments as an ordinary user; as root it switches to one and says so.
AS_USER     := scripts/unprivileged.sh
# Runs a tool of tools/go.mod, whose sums are in tools/go.sum.
TOOL        := go tool -modfile=tools/go.mod

.DEFAULT_GOAL := help
.PHONY: help build install man packages packages-test test smoke unit e2e engines overlay stores sim lint fuzz soak vm vuln bench bench-syscalls bench-neighbour bench-growth demo demo-engines clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/usernet, a static binary
	@mkdir -p bin
	scripts/build.sh bin/usernet -ldflags "-s -w -X main.version=$$(scripts/version.sh)"

install: build man ## install it below $(PREFIX) (~/.local by default): binary, manual pages, completions, systemd user units
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" scripts/install.sh

man: build ## write the manual pages to man/
	bin/usernet man man

packages: ## make deb and rpm packages for amd64 and arm64 in packages/, with their SBOMs
	@scripts/packages.sh packages

packages-test: ## install, use, upgrade and remove the packages in an overlay of this machine's root file system, which root makes
	@scripts/packages-test.sh

test: ## run every test with the race detector, as an ordinary user
	@$(AS_USER) scripts/test.sh $(TESTFLAGS)

smoke: ## run the end-to-end tests that show in less than a minute that nothing is badly broken
	@$(AS_USER) scripts/test.sh --smoke $(TESTFLAGS)

unit: ## run the tests that need no namespaces only
	@$(AS_USER) scripts/test.sh --unit $(TESTFLAGS)

e2e: ## run the end-to-end tests only, without the race detector; one of them: make e2e TESTFLAGS='-run TestName'
	@$(AS_USER) scripts/test.sh --e2e $(TESTFLAGS)

engines: ## run Podman, RootlessKit and rootless Docker over usernet, as an ordinary user in a network that root makes
	@scripts/engines.sh $(TESTFLAGS)

overlay: ## run the tests of networks that span hosts, in namespaces that root makes; the daemons run as ordinary users
	@scripts/overlay.sh $(TESTFLAGS)

stores: ## run the tests of key-value stores' adapters against etcd, Consul and ZooKeeper, as an ordinary user
	@$(AS_USER) scripts/test.sh --stores $(TESTFLAGS)

sim: ## simulate a cluster without a store in memory (SIM='-hosts 50 -endpoints 1000')
	GOGC=200 GOMEMLIMIT=6GiB go test -count=1 -timeout 0 -v -run Simulation ./overlay/gossip/sim -args $(SIM)

lint: ## gofmt, go vet and staticcheck at the version of tools/go.mod
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted (run gofmt -w): $$files"; exit 1; fi
	go vet ./...
	$(TOOL) staticcheck ./...

fuzz: ## run each fuzz target for $(FUZZTIME)
	@FUZZTIME=$(FUZZTIME) $(AS_USER) scripts/fuzz.sh

soak: ## mixed load over 50 containers with faults for SOAK (1h), as an ordinary user
	@USERNET_SOAK=$(or $(SOAK),1h) $(AS_USER) scripts/soak.sh

vm: ## virtual machines: its clock is set and it is suspended; limits; of arm64; as a guest (scripts/vm.sh says what they need)
	@scripts/vm.sh arm64 & arm64=$$!; result=0; scripts/vm.sh && scripts/vm.sh limits && scripts/vm-guests.sh || result=1; wait $$arm64 && exit $$result

vuln: ## look for known vulnerabilities in what is called, with the database at VULNDB (vuln.go.dev; file:///DIR)
	@VULNDB="$(VULNDB)" scripts/vuln.sh

bench: ## measure throughput with iperf3 beside slirp4netns and pasta, as an ordinary user (BENCHFLAGS='--json FILE')
	@$(AS_USER) go run ./test/bench $(BENCHFLAGS)

bench-syscalls: ## count the system calls for each connection, request and datagram, beside slirp4netns and pasta, as an ordinary user
	@$(AS_USER) go run ./test/bench --syscalls --runs 1 --seconds 2 \
		--only '(requests of one byte|connections opened).*MTU 1500|datagrams of 1400 bytes that' $(BENCHFLAGS)

bench-neighbour: ## measure what a neighbour notices of floods: times of its requests beside those at rest, as an ordinary user
	@USERNET_NEIGHBOUR=7 $(AS_USER) go test -count=1 -timeout 20m -run '^TestNeighboursOfFloods$$' -v ./test

bench-growth: ## measure how times and memory grow with endpoints, networks, names, ports and flows, as an ordinary user
	@$(AS_USER) go run ./test/growth $(BENCHFLAGS)

demo: ## see it work: two named containers, a published port, the host, as an ordinary user
	@$(AS_USER) scripts/demo.sh

demo-engines: ## see containers of Podman, Docker, CNI, crun, a virtual machine and usernet on one network
	@scripts/demo-engines.sh

clean: ## remove what was built
	rm -rf bin man packages
