package telemetry_test

import (
	"context"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"
)

// A history is what Prometheus stores of its scrapes. Its own engine queries it.
type history map[uint64]*stored

type stored struct {
	labels  labels.Labels
	samples []chunks.Sample
}

// scrape stores what the exporter exports at a time.
func (s *scene) scrape(t *testing.T, at time.Time) {
	families, err := s.registry.Gather()
	require.NoError(t, err)
	samples, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{Timestamp: model.TimeFromUnixNano(at.UnixNano())}, families...)
	require.NoError(t, err)
	now := at.UnixMilli()
	for _, sample := range samples {
		set := labels.NewBuilder(labels.EmptyLabels())
		for name, value := range sample.Metric {
			set.Set(string(name), string(value))
		}
		l := set.Labels()
		if s.history[l.Hash()] == nil {
			s.history[l.Hash()] = &stored{labels: l}
		}
		s.history[l.Hash()].add(now, float64(sample.Value))
	}
	for _, series := range s.history { // a series that is not exported any more is stale
		if last := series.samples[len(series.samples)-1]; last.T() < now && !value.IsStaleNaN(last.F()) {
			series.add(now, math.Float64frombits(value.StaleNaN))
		}
	}
}

// with is the same history as scraped from a target: its labels are added to each series.
func (h history) with(target map[string]string) history {
	labelled := history{}
	for _, series := range h {
		set := labels.NewBuilder(series.labels)
		for name, value := range target {
			set.Set(name, value)
		}
		l := set.Labels()
		labelled[l.Hash()] = &stored{labels: l, samples: series.samples}
	}
	return labelled
}

// merge is what Prometheus stores that scrapes several targets.
func merge(all ...history) history {
	merged := history{}
	for _, h := range all {
		maps.Copy(merged, h)
	}
	return merged
}

func (s *stored) add(at int64, v float64) { s.samples = append(s.samples, sample{at, v}) }

// query evaluates an expression at a time.
func (h history) query(t *testing.T, expr string, at time.Time) promql.Vector {
	q, err := engine.NewInstantQuery(context.Background(), h, nil, expr, at)
	require.NoError(t, err, expr)
	defer q.Close()
	result := q.Exec(context.Background())
	require.NoError(t, result.Err, expr)
	vector, err := result.Vector()
	require.NoError(t, err, expr)
	return vector
}

var engine = promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})

func (h history) Querier(_, _ int64) (storage.Querier, error) { return querier{h}, nil }

type querier struct{ history }

func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	var found []storage.Series
	for _, s := range q.history {
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) }) {
			found = append(found, storage.NewListSeries(s.labels, s.samples))
		}
	}
	slices.SortFunc(found, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return &seriesSet{found: found}
}

func (querier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	panic("not needed by the engine")
}

func (querier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	panic("not needed by the engine")
}

func (querier) Close() error { return nil }

type seriesSet struct {
	found []storage.Series
	next  int
}

func (s *seriesSet) Next() bool                        { s.next++; return s.next <= len(s.found) }
func (s *seriesSet) At() storage.Series                { return s.found[s.next-1] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

type sample struct {
	at    int64
	value float64
}

func (s sample) T() int64                      { return s.at }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.value }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }
