package spillover_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The modules that a program gets with the packages for users. Another one needs a
// reason: each is code that users run, update and trust.
var linkedModules = []string{
	"github.com/hashicorp/go-cleanhttp", // of go-retryablehttp
	"github.com/hashicorp/go-retryablehttp",
	"go.opentelemetry.io/otel", // the API, without the SDK
	"go.opentelemetry.io/otel/metric",
	"go.opentelemetry.io/otel/trace",
	"go.yaml.in/yaml/v3",

	"github.com/cespare/xxhash/v2", // of OpenTelemetry's API
	"github.com/go-logr/logr",
	"github.com/go-logr/stdr",
	"go.opentelemetry.io/auto/sdk",
	"go.opentelemetry.io/otel/log",
}

// The modules that only tests and the example use.
var testModules = []string{
	"github.com/sashabaranov/go-openai", // example
	"github.com/stretchr/testify",
	"pgregory.net/rapid",
}

func TestDependencies(t *testing.T) {
	command := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".", "./statuspage", "./spillovertest")
	command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly") // as users have it
	var problems strings.Builder
	command.Stderr = &problems
	output, err := command.Output()
	require.NoError(t, err, "%s", problems.String())
	linked := slices.Compact(slices.Sorted(slices.Values(strings.Fields(string(output)))))
	require.Contains(t, linked, "github.com/spillover-go/spillover")
	for _, module := range linked {
		if module != "github.com/spillover-go/spillover" {
			require.Contains(t, linkedModules, module, "the root package, statuspage or spillovertest links a new module")
		}
	}

	text, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	var required []string
	for _, m := range regexp.MustCompile(`(?m)^(?:require)?\s+(\S+) v\S+`).FindAllStringSubmatch(string(text), -1) {
		required = append(required, m[1])
	}
	require.ElementsMatch(t, slices.Concat(linkedModules, testModules), required, "go.mod requires these, and no other")
}
