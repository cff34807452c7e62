# One set of build flags everywhere: another one compiles the Graph SDK anew, for minutes.
export GOFLAGS := -trimpath
GO      ?= go
SEEDS   ?= 1
SIGNUPS ?= 200
HANDLER := bin/handler

help: ## Explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/handler, static, for this machine
	CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o $(HANDLER) ./handler

run: build ## Show the whole job on this machine: a simulated tenant, real protocol, three destinations
	$(HANDLER) local --signups $(SIGNUPS)

.PHONY: help build run
