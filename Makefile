# One set of build flags everywhere: another one compiles the Graph SDK anew, for minutes.
export GOFLAGS := -trimpath
GO      ?= go
HANDLER := bin/handler
SIGNUPS ?= 200
SEEDS   ?= 100
SOAK    ?= 20s
MOST    ?= 200
ROWS    ?= 1000,10000,100000
AZURITE := handler/ledger/azurite
FROMNPM := handler/connector/npm
PLAINJS := handler/bench/plainjs
AXE     := handler/status/npm
NODE_MODULES := $(AZURITE)/node_modules $(FROMNPM)/node_modules $(PLAINJS)/node_modules $(AXE)/node_modules

# What 'make bench' measures, one after the other, so that none disturbs another.
PARTS   ?= burst compare cpu footprint size cost growth decode build
BURST   ?= 10000
MEASURE := BENCH_DIR=bin/bench CGO_ENABLED=0 $(GO) test -count 1 -timeout 60m -v
MEASURES_burst     := -run TestBurst -burst $(BURST)
MEASURES_compare   := -run TestCompare -compare
MEASURES_cpu       := -run TestCPU -busy
MEASURES_footprint := -run TestFootprint -footprint
MEASURES_size      := -run TestSize -size
MEASURES_cost      := -run TestCost -cost
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.8.0
LDFLAGS := -ldflags '-s -w'

help: ## Explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/handler, static, for this machine
	CGO_ENABLED=0 $(GO) build $(LDFLAGS) -o $(HANDLER) ./handler

run: build ## Show the whole job on this machine: a simulated tenant, the destinations; KEEP=1 leaves the status page up
	$(HANDLER) local --signups $(SIGNUPS)$(if $(KEEP), --keep)

test: build databases shell browser $(NODE_MODULES) ## Install what the tests need and run them all, with the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout 20m ./handler/... ./scripts
	CGO_ENABLED=0 $(GO) test ./handler/soak -for $(SOAK)
	CGO_ENABLED=0 $(GO) test ./handler/bench -run 'TestBurst$$'

databases: ## Install PostgreSQL and MariaDB, which the tests start for themselves, where this is Debian and root
	@sh .ci/databases

shell: ## Install shellcheck and what stands for the Azure CLI in tests, where this is Debian and root
	@sh .ci/shell

browser: ## Install the browser in which the status page is tested, where this is Debian and root
	@sh .ci/browser

bench: ## Measure PARTS (default: everything, some 20 minutes), and write docs/performance.md and bench.json of them
	@$(if $(filter file,$(origin PARTS)),rm -rf bin/bench)
	@failed=; for part in $(PARTS); do rm -f bin/bench/$$part.json; \
	$(MAKE) --no-print-directory bench-$$part && test -f bin/bench/$$part.json || failed="$$failed $$part"; done; \
	$(MEASURE) ./handler/bench -run TestReport -report && { test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }; }

bench-burst bench-compare bench-cpu bench-footprint bench-size bench-cost: bench-%: $(NODE_MODULES)
	$(MEASURE) ./handler/bench $(MEASURES_$*)

bench-growth: growth

bench-decode:
	$(MEASURE) ./handler/entra -run TestDecode -decode

bench-build:
	$(MEASURE) ./handler/bench -run TestColdBuild -cold

growth: $(NODE_MODULES) ## Measure what a run, a sweep and a census cost with ROWS settled rows in the ledger, some minutes
	$(MEASURE) ./handler/pipeline -run TestGrowth -growth $(ROWS)

soak: ## Play SEEDS simulations of the whole engine, each with people and faults of its own, and the test of isolation
	CGO_ENABLED=0 $(GO) test -c -o bin/soak.test ./handler/soak
	cd handler/soak && ../../bin/soak.test -test.v -test.run 'TestSoak|TestIsolation|TestSeed' -seeds $(SEEDS) -dead-for 72h

mutants: ## Make each deliberate fault in the engine, and see how many simulations, up to MOST, it takes to find it
	CGO_ENABLED=0 $(GO) test ./handler/soak -run TestDeliberateFaults -v -timeout 24h -mutants -most $(MOST)

package: ## Make dist/signup-sync.zip for a Linux Function App, with the licences of all in it; or: go run ./handler package
	CGO_ENABLED=0 $(GO) run ./handler package

vulnerabilities: ## Ask Go's vulnerability database, at vuln.go.dev, about what the program calls; an error if it cannot be asked
	@CGO_ENABLED=0 $(GO) run $(GOVULNCHECK) ./handler || { echo "!! vulnerable, or NOT CHECKED because the database cannot be reached: see above" >&2; exit 1; }

lint: ## go vet, staticcheck, gofmt, go mod tidy, go mod verify; shellcheck is among the tests
	CGO_ENABLED=0 $(GO) vet ./handler/... ./scripts
	CGO_ENABLED=0 $(GO) run $(STATICCHECK) ./handler/... ./scripts
	@test -z "$$(gofmt -l handler scripts)" || { gofmt -l handler scripts; echo "not gofmt-ed: run 'gofmt -w handler scripts'"; exit 1; }
	$(GO) mod tidy -diff
	$(GO) mod verify

docs: ## Write the pages that are generated from the code
	CGO_ENABLED=0 $(GO) run ./handler docs

sim: build ## Serve the simulated tenant and destinations, for 'func start'
	$(HANDLER) sim

clean: ## Remove what was built and what local runs have left
	rm -rf bin dist .local .sim

%/node_modules: %/package-lock.json
	npm ci --prefix $* --no-audit --no-fund
	@touch $@

.PHONY: help build run test databases shell browser bench $(PARTS:%=bench-%) growth soak mutants package vulnerabilities lint docs sim clean
