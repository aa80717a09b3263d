package spillover

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Labels are the attributes of what is recorded, in the forms that instruments
// take.
type labels struct {
	option metric.MeasurementOption
	add    []metric.AddOption
	record []metric.RecordOption
}

func newLabels(attributes ...attribute.KeyValue) labels {
	set := metric.WithAttributeSet(attribute.NewSet(attributes...))
	return labels{set, []metric.AddOption{set}, []metric.RecordOption{set}}
}

// An identity is what a deployment is called in metrics, with the labels of all
// that a healthy request records made ahead.
type identity struct {
	model string // "" for requests that name none

	attributes    []attribute.KeyValue
	all           labels
	served        labels // of attempts
	request       labels // of requests that it served
	input, output labels // of tokens
}

// otherModels is what models are called that metrics do not tell apart.
const otherModels = "other"

func newIdentity(d *deployment, model string) *identity {
	tier := keyTier.Int(d.backend.priority)
	id := &identity{model: model, attributes: []attribute.KeyValue{keyBackend.String(d.backend.name), tier}}
	name := sanitize(d.name)
	if model == otherModels {
		name = otherModels
	}
	if model != "" {
		id.attributes = append(id.attributes, keyModel.String(model), keyDeployment.String(name))
	}
	id.all = newLabels(id.attributes...)
	id.served = id.with(keyOutcome.String(served.String()))
	id.input = id.with(keyTokenType.String("input"))
	id.output = id.with(keyTokenType.String("output"))
	id.request = newLabels(ofModel(model, keyOutcome.String(served.String()), tier)...)
	return id
}

func (id *identity) with(more ...attribute.KeyValue) labels {
	return newLabels(slices.Concat(id.attributes, more)...)
}

// ofModel are attributes and that of a model, if there is one.
func ofModel(model string, more ...attribute.KeyValue) []attribute.KeyValue {
	if model != "" {
		more = append(more, keyModel.String(model))
	}
	return more
}

// identify is what a deployment is called in metrics.
func (t *pool) identify(table *table, d *deployment) *identity {
	id := d.identity.Load()
	if id == nil || id.model == otherModels && t.models.met(d.model) {
		id = newIdentity(d, t.models.label(table, d.model))
		d.identity.Store(id)
	}
	return id
}

// Models are those that metrics tell apart beside the ones of the configuration:
// the first that a deployment served. Callers may make names up, as many as they
// like, but not of what is served.
type models struct {
	names   atomic.Pointer[map[string]bool]
	growing sync.Mutex
}

const maxModels = 100

func (m *models) all() map[string]bool {
	if names := m.names.Load(); names != nil {
		return *names
	}
	return nil
}

func (m *models) met(model string) bool { return m.all()[model] }

// label is what a model is called.
func (m *models) label(t *table, model string) string {
	if model == "" {
		return ""
	}
	if _, configured := slices.BinarySearch(t.models, model); configured || m.met(model) {
		return sanitize(model)
	}
	return otherModels
}

// meet takes note of a model that was served.
func (m *models) meet(model string) {
	if len(m.all()) >= maxModels {
		return
	}
	m.growing.Lock()
	defer m.growing.Unlock()
	if len(m.all()) < maxModels {
		grown := map[string]bool{strings.Clone(model): true}
		maps.Copy(grown, m.all())
		m.names.Store(&grown)
	}
}
