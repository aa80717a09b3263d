package spillover

import "github.com/spillover-go/spillover/internal/telemetry"

// The types of internal/telemetry that other files keep a value of. record.go and
// observe.go feed them.
type (
	recorder        = telemetry.Recorder
	recorderOptions = telemetry.Options
	requestRecord   = telemetry.Request
	attemptRecord   = telemetry.Attempt
	episode         = telemetry.Episode
	configChanges   = telemetry.ConfigChanges
	// deploymentLabels is how a deployment is called in metrics, spans and log records.
	deploymentLabels = telemetry.Deployment
)

func newRecorder(o recorderOptions, earlier *recorder) (*recorder, error) {
	return telemetry.New(o, earlier)
}
