package telemetry

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/spillover-go/spillover/internal/redact"
)

// Labels are the attributes of a measurement, in the forms that instruments take.
type labels struct {
	observe metric.MeasurementOption
	add     []metric.AddOption
	record  []metric.RecordOption
}

func newLabels(attributes ...attribute.KeyValue) labels {
	set := metric.WithAttributeSet(attribute.NewSet(attributes...))
	return labels{set, []metric.AddOption{set}, []metric.RecordOption{set}}
}

// A Deployment is how one deployment is called in metrics, spans and log records.
// It must not be copied.
type Deployment struct {
	Backend  string
	Tier     int
	Provider string // gen_ai.provider.name
	Model    string // in requests; "" for requests without a model
	Name     string // at the backend; "" where it is the model's

	cached atomic.Pointer[deploymentLabels]
}

// deploymentLabels are the labels of a deployment, with all that a successful
// request needs made in advance.
type deploymentLabels struct {
	model string // "" for requests without a model

	attributes    []attribute.KeyValue
	all           labels
	served        labels    // of attempts
	request       [2]labels // of requests that it served: interactive and background
	input, output labels    // of tokens
}

// outcomeServed is the outcome of requests and attempts whose labels are made in
// advance.
const outcomeServed = "served"

// classes are the attributes of interactive and of background requests.
var classes = [2]attribute.KeyValue{keyClass.String("interactive"), keyClass.String("background")}

// otherModels is the label that models without a label of their own share.
const otherModels = "other"

func newDeploymentLabels(d *Deployment, model string) *deploymentLabels {
	tier := keyTier.Int(d.Tier)
	l := &deploymentLabels{model: model, attributes: []attribute.KeyValue{keyBackend.String(d.Backend), tier}}
	name := redact.Sanitize(d.Name)
	if model == otherModels {
		name = otherModels
	}
	if model != "" {
		l.attributes = append(l.attributes, keyModel.String(model), keyDeployment.String(name))
	}
	l.all = newLabels(l.attributes...)
	l.served = l.with(keyOutcome.String(outcomeServed))
	l.input = l.with(keyTokenType.String("input"))
	l.output = l.with(keyTokenType.String("output"))
	for i, class := range classes {
		l.request[i] = newLabels(withModel(model, class, keyOutcome.String(outcomeServed), tier)...)
	}
	return l
}

func (l *deploymentLabels) with(more ...attribute.KeyValue) labels {
	return newLabels(slices.Concat(l.attributes, more)...)
}

// withModel adds the label of a model to attributes, if there is one.
func withModel(label string, attributes ...attribute.KeyValue) []attribute.KeyValue {
	if label != "" {
		attributes = append(attributes, keyModel.String(label))
	}
	return attributes
}

func (r *Recorder) labels(d *Deployment) *deploymentLabels {
	l := d.cached.Load()
	if l == nil || l.model == otherModels && r.served.has(d.Model) {
		l = newDeploymentLabels(d, r.modelLabel(d.Model))
		d.cached.Store(l)
	}
	return l
}

// modelLabel is the name of a model in metrics.
func (r *Recorder) modelLabel(model string) string {
	switch {
	case model == "":
		return ""
	case r.configured[model] || r.served.has(model):
		return redact.Sanitize(model)
	}
	return otherModels
}

// servedModels are the models that have a label of their own beside those of the
// configuration: the first ones that a deployment has served. Callers can make up
// any number of names, but no deployment serves them.
type servedModels struct {
	names   atomic.Pointer[map[string]bool]
	growing sync.Mutex
}

const maxServedModels = 100

func (m *servedModels) all() map[string]bool {
	if names := m.names.Load(); names != nil {
		return *names
	}
	return nil
}

func (m *servedModels) has(model string) bool { return m.all()[model] }

func (m *servedModels) add(model string) {
	if len(m.all()) >= maxServedModels {
		return
	}
	m.growing.Lock()
	defer m.growing.Unlock()
	if len(m.all()) < maxServedModels {
		grown := map[string]bool{strings.Clone(model): true}
		maps.Copy(grown, m.all())
		m.names.Store(&grown)
	}
}
