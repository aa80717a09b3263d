package interop

// Packages that the documentation uses and no test does.
import (
	_ "github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "go.opentelemetry.io/otel/exporters/prometheus"
)
