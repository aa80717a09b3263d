package telemetry

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/doctest"
)

const document = "../../docs/telemetry.md"

// advice is what to do about what a metric shows.
var advice = map[string]string{
	"spillover.requests":                      "Watch the share of outcomes other than `served`. `broken` and `failed` are problems of the deployments, `rejected` of the callers. By `spillover.tier` it shows the share that failed over to a lower tier.",
	"spillover.request.duration":              "Compare tiers. If only one of them has long tails, look there.",
	"spillover.request.time_to_first_content": "The time that users wait for. If it grows while attempts succeed as before, the deployments are overloaded.",
	"spillover.request.wait_time":             "Its count is the number of requests that had to wait. If it is high, there is too little quota, or `MaxWait` is too long for your callers.",
	"spillover.synthesized_answers":           "429: all deployments were rate-limited. Add deployments or quota, or set `MaxWait`. 404: a caller or a configuration names a model that no backend serves.",
	"spillover.attempts":                      "Attempts per request are the cost of failing over. `throttled` in the first tier is normal spillover; in the last tier it is a lack of quota.",
	"spillover.tokens":                        "Shows how much of each quota, and of a PTU, is used. Streams of chat completions without `include_usage` are missing: let callers set it if most traffic is streams.",
	"spillover.cooldown.duration":             "Its count is the number of cool-downs and ejections. `cooling`: the service rate-limits. `out`: a failure, see the log.",
	"spillover.deployment.available":          "0 for all deployments of a model: every request is refused or waits. If it stays 0 for minutes, the log has the reason.",
	"spillover.deployment.in_flight":          "A value that only grows means a response body is never closed.",
	"spillover.fleet.notices":                 "`received` stays 0 although other replicas are busy: they do not reach this one. Many `ignored`: a replica with another version, or one that tells what is not true; the log of the engine and `Status` show which.",
	"spillover.deployment.utilization":        "Above 0.85 some requests go to the next tier early. If it is far lower while requests fail over, look for what keeps them away.",
}

func TestInstrumentsInDocs(t *testing.T) {
	var page strings.Builder
	page.WriteString("| metric | type | unit | attributes | what it is | what to do about it |\n|---|---|---|---|---|---|\n")
	for _, i := range Table {
		require.NotEmpty(t, advice[i.Name], i.Name)
		kind := map[string]string{"Int64Counter": "counter", "Int64ObservableCounter": "counter", "Float64Histogram": "histogram", "Int64ObservableUpDownCounter": "up-down counter", "Float64ObservableGauge": "gauge"}
		var attributes []string
		for _, a := range i.Attributes {
			attributes = append(attributes, "`"+string(a)+"`")
		}
		fmt.Fprintf(&page, "| `%s` | %s | `%s` | %s | %s | %s |\n", i.Name, kind[reflect.TypeOf(i.field(new(instruments))).Elem().Name()], i.Unit,
			strings.Join(attributes, ", "), i.Help, advice[i.Name])
	}
	doctest.Section(t, document, "metrics", page.String())
}

func TestTransitionRecordsAreInDocs(t *testing.T) {
	text, err := os.ReadFile(document)
	require.NoError(t, err)
	for _, r := range transitionRecords {
		for _, message := range []string{r.deployment, r.backend} {
			require.True(t, message == "" || strings.Contains(string(text), fmt.Sprintf("| `%s` | %s |", message, r.level)), message)
		}
	}
}
