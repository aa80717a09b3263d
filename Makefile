# CI runs `make check` and `make lint`, by the script .ci/run, which has the steps.

.PHONY: check test lint fuzz cover docs

check: ## everything that CI checks except golangci-lint, about half an hour
	.ci/run

test: ## the tests of the root module, without the race detector
	go test ./...

lint: ## formatting, vet and golangci-lint, in all modules
	.ci/run format vet lint

fuzz: ## each fuzz target for ten seconds
	FUZZTIME=$${FUZZTIME-10s} .ci/run fuzz

cover: ## coverage of the root package and internal/*, at least 99 %
	.ci/run cover

docs: ## the generated parts of the documents; look at the difference before you commit it
	go test -count=1 $$(go list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | awk '/\[.*internal\/doctest/ {print $$1}') -update
	cd interop && go test -count=1 -run '^TestSDKs$$' . -update
	cd benchmarks/lab && go test -count=1 -run '^TestPictureInDocs$$' . -update
	cd statuspage/browser && go test -count=1 -run '^TestScreenshots$$' . -update
