module github.com/spillover-go/spillover/benchmarks/lab

go 1.26

require (
	github.com/spillover-go/spillover v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
)

replace github.com/spillover-go/spillover => ../..
