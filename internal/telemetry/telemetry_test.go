package telemetry

import (
	"reflect"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryInstrumentIsCreatedAsInTheTable(t *testing.T) {
	l, r := listened(t)
	require.Len(t, l.Declared, len(Table))
	pattern := regexp.MustCompile(`^(s|1|\{[a-z]+\}) [A-Z0-9].*\.$`)
	fields := map[any]bool{}
	for _, i := range Table {
		require.Regexp(t, pattern, l.Declared[i.Name], "unit and a sentence")
		require.NotNil(t, reflect.ValueOf(i.field(&r.instruments)).Elem().Interface(), i.Name)
		fields[i.field(&r.instruments)] = true
	}
	require.Len(t, fields, reflect.TypeFor[instruments]().NumField()-1, "all but the meter")
}

func TestErrorOfTheMeterProviderIsReturned(t *testing.T) {
	for _, i := range Table {
		l, _ := listened(t)
		l.Refuses = i.Name
		_, err := New(Options{MeterProvider: l.MeterProvider()}, nil)
		require.EqualError(t, err, "spillover: MeterProvider: no "+i.Name)
	}
	l, r := listened(t)
	l.Refuses = "callback"
	require.EqualError(t, r.Observe(nil, noNotices), "spillover: MeterProvider: no callback")
	require.Empty(t, l.Callbacks)
}

func TestErrorTypeIsAStatusOrOneWord(t *testing.T) {
	require.Equal(t, "429", ErrorType(429, "429 rate_limit_exceeded"))
	require.Equal(t, "no_answer_in_time", ErrorType(0, "no answer in time"))
	require.Equal(t, "_OTHER", ErrorType(999, "999"))
	require.Equal(t, "_OTHER", ErrorType(0, ""))
}

func TestNothingIsLoggedWithoutALogger(t *testing.T) {
	r := globally(t)
	require.False(t, r.LogsAttempts(t.Context()))
	require.False(t, r.LogsWarnings(t.Context()))
}
