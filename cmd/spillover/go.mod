module github.com/spillover-go/spillover/cmd/spillover

go 1.26.0

require (
	github.com/spillover-go/spillover v0.1.0
	github.com/spillover-go/spillover/entra v0.1.0
	github.com/spillover-go/spillover/fleet/redis v0.1.0
	github.com/stretchr/testify v1.12.1
	github.com/urfave/cli/v3 v3.14.0
	github.com/schollz/progressbar/v3 v3.19.1
	github.com/coder/websocket v1.8.15
	go.opentelemetry.io/otel/exporters/prometheus v0.69.0
	github.com/prometheus/client_golang v1.25.0
	go.opentelemetry.io/otel/sdk/metric v1.47.0
	golang.org/x/sys v0.49.0
	golang.org/x/term v0.47.0
)
