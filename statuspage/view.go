package statuspage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillover-go/spillover"
)

// maxRows is how many deployments the page lists.
const maxRows = 500

// tierColors is how many colours the lines of tiers have.
const tierColors = 4

// A view is what the page shows. The template and the script render it alike: fields
// are texts by the name of the place in the page.
type view struct {
	Time  int64  `json:"time"`  // Unix milliseconds
	Level string `json:"level"` // ok, degraded, down
	Title string `json:"title"`
	Due   string `json:"due,omitempty"`   // what comes before the countdown in the headline
	Until int64  `json:"until,omitempty"` // Unix milliseconds

	Fields fields     `json:"fields"`
	Tiers  []tierView `json:"tiers"`
	Fleet  *fleetView `json:"fleet,omitempty"`

	HasUtilization bool `json:"has_utilization"`
}

type fields map[string]string

type tierView struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Color  int    `json:"color"` // in the chart
	Fields fields `json:"fields"`
	Rows   []row  `json:"rows"`
}

// A row is one deployment.
type row struct {
	ID          string `json:"id"`
	State       string `json:"state"`
	Open        bool   `json:"open,omitempty"`        // the last failure is shown
	Due         string `json:"due,omitempty"`         // what comes before the countdown
	Until       int64  `json:"until,omitempty"`       // Unix milliseconds
	FailedAt    int64  `json:"failed_at,omitempty"`   // Unix milliseconds
	Utilization *int   `json:"utilization,omitempty"` // percent
	Fields      fields `json:"fields"`
}

// Percent returns the width of the bar of the utilization.
func (r row) Percent() int {
	if r.Utilization == nil {
		return 0
	}
	return min(*r.Utilization, 100)
}

type fleetView struct {
	Fields fields       `json:"fields"`
	Rows   []replicaRow `json:"rows"`
}

type replicaRow struct {
	ID     string `json:"id"`
	Heard  int64  `json:"heard"` // Unix milliseconds
	State  string `json:"state"`
	Fields fields `json:"fields"`
}

// blankItems are what the script fills.
var blankItems = blank{row{State: states[available].ID}, tierView{}, replicaRow{State: states[available].ID}}

type blank struct {
	Row     row
	Tier    tierView
	Replica replicaRow
}

// html renders the page.
func (p *Page) html(s *snapshot) ([]byte, error) {
	if s.html == nil {
		var b bytes.Buffer
		err := page.Execute(&b, struct {
			view

			Blank blank
		}{p.view(s), blankItems})
		if err != nil {
			return nil, err
		}
		s.html = b.Bytes()
	}
	return s.html, nil
}

// update is what the script of the page requests: the view, and the samples that are
// newer than those it has.
func (p *Page) update(s *snapshot, after int64) ([]byte, error) {
	if body := s.updates[after]; body != nil {
		return body, nil
	}
	body, err := json.Marshal(struct {
		view

		History historyJSON `json:"history"`
	}{p.view(s), p.history.export(s.status, after)})
	if err == nil && len(s.updates) < mostUpdates {
		if s.updates == nil {
			s.updates = map[int64][]byte{}
		}
		s.updates[after] = body
	}
	return body, err
}

// json is the state for programs.
func (p *Page) json(s *snapshot) (body []byte, err error) {
	if s.json == nil {
		s.json, err = json.Marshal(struct {
			Time    time.Time        `json:"time"`
			Status  spillover.Status `json:"status"`
			History historyJSON      `json:"history"`
		}{s.at, s.status, p.history.export(s.status, 0)})
	}
	return s.json, err
}

func (p *Page) view(s *snapshot) view {
	v := view{Time: s.at.UnixMilli(), Tiers: []tierView{}}
	var total, rateLimits, failures uint64
	var input, output int64
	inFlight := 0
	models := modelStates{}
	counts := make([]int, len(states))
	window, _ := p.history.sum(&p.history.pool, maxSamples)
	omitted := map[string]bool{}
	for _, id := range omittedRows(s.status, s.at) {
		omitted[id] = true
	}
	for i := range s.status.Tiers {
		t := &s.status.Tiers[i]
		tier := tierView{ID: "tier-" + strconv.Itoa(t.Priority), Name: "Tier " + strconv.Itoa(i+1), Color: i % tierColors, Rows: []row{}}
		tierCounts := make([]int, len(states))
		left := 0
		for d, b := range deploymentsOf(t) {
			state, until, _ := stateOf(b, d, s.at)
			tierCounts[state]++
			counts[state]++
			models.add(modelOf(b, d), d.Available, until)
			total, rateLimits, failures = total+d.Served, rateLimits+d.Throttled, failures+d.Failed
			input, output, inFlight = input+d.InputTokens, output+d.OutputTokens, inFlight+d.InFlight
			if id := idOf(b, d); omitted[id] {
				left++
				continue
			}
			r := rowOf(b, d, s.at)
			v.HasUtilization = v.HasUtilization || !d.UtilizationAt.IsZero()
			tier.Rows = append(tier.Rows, r)
		}
		tier.Fields = fields{"tier": tier.Name, "available": countText(tierCounts)}
		if t.Priority != i+1 {
			tier.Fields["priority"] = "priority " + strconv.Itoa(t.Priority)
		}
		if own, _ := p.history.sum(p.history.tiers[t.Priority], maxSamples); window.served > 0 {
			tier.Fields["share"] = percent(float64(own.served)/float64(window.served)) + " of served requests"
		}
		if left > 0 {
			tier.Fields["omitted"] = number(left) + " more available deployments are not listed here. status.json has them."
		}
		v.Tiers = append(v.Tiers, tier)
	}
	v.setHeadline(counts, models)
	v.Fields["in_flight"] = number(inFlight)
	v.Fields["in_flight_peak"] = "up to " + number(max(inFlight, p.history.mostInFlight())) + " in 15 min"
	v.Fields["served_total"], v.Fields["throttled_total"], v.Fields["failed_total"] = number(total)+" in total", number(rateLimits)+" in total", number(failures)+" in total"
	v.Fields["tokens_total"] = compact(float64(input)) + " in, " + compact(float64(output)) + " out in total"
	p.rates(&v, window)
	v.Fleet = fleetOf(s.status.Fleet, s.at)
	return v
}

// rates sets the fields that follow from the history.
func (p *Page) rates(v *view, window point) {
	minute, took := p.history.sum(&p.history.pool, int(time.Minute/sampleInterval))
	for _, name := range []string{"served_rate", "throttled_rate", "failed_rate", "input_rate", "output_rate", "spilled"} {
		v.Fields[name] = "–"
	}
	if took > 0 {
		v.Fields["served_rate"] = decimal(float64(minute.served) / took.Seconds())
		v.Fields["throttled_rate"] = decimal(float64(minute.throttled) / took.Minutes())
		v.Fields["failed_rate"] = decimal(float64(minute.failed) / took.Minutes())
		v.Fields["input_rate"] = compact(float64(minute.input) / took.Minutes())
		v.Fields["output_rate"] = compact(float64(minute.output) / took.Minutes())
	}
	v.Fields["spilled_count"] = "no requests yet"
	if window.served > 0 {
		v.Fields["spilled"] = percent(float64(window.spilled) / float64(window.served))
		v.Fields["spilled_count"] = number(window.spilled) + " of " + number(window.served) + " in 15 min"
	}
}

// modelStates has the models for which no deployment is available, with the time when the
// first one is due, and those for which one is, with the time zero.
type modelStates map[string]modelState

type modelState struct {
	available bool
	due       time.Time // of the first deployment, if none is available
}

func (m modelStates) add(model string, available bool, until time.Time) {
	s := m[model]
	s.available = s.available || available
	if s.due.IsZero() || !until.IsZero() && until.Before(s.due) {
		s.due = until
	}
	m[model] = s
}

// without returns the models for which no deployment is available, and when the first
// one is due. A backend for any model is one for each of them, and if it is unavailable,
// the others may still serve all models.
func (m modelStates) without() (names []string, due time.Time) {
	if m[anyModel].available {
		return nil, due
	}
	for name, s := range m {
		if s.available || name == anyModel && len(m) > 1 {
			continue
		}
		names = append(names, name)
		if due.IsZero() || !s.due.IsZero() && s.due.Before(due) {
			due = s.due
		}
	}
	slices.Sort(names)
	return names, due
}

// setHeadline sets what the headline says about the pool. Rate limits and drained
// deployments are normal operation, as long as each model has an available deployment.
func (v *view) setHeadline(counts []int, models modelStates) {
	all := 0
	for _, n := range counts {
		all += n
	}
	limited := counts[rateLimited] + counts[rampingUp]
	without, due := models.without()
	some := func(n int, what string) string {
		return fmt.Sprintf("%s of %s %s", number(n), plural(all, "deployment"), what)
	}
	v.Level, v.Fields = "ok", fields{}
	if all > counts[available] {
		v.Fields["detail"] = countText(counts)
	}
	switch {
	case all == 0:
		v.Title = "No deployments"
	case limited+counts[ejected]+counts[drained] == all:
		v.Level, v.Title = "down", "No deployment available"
	case len(without) > 0:
		v.Level, v.Title = "down", "No deployment available for "+enumerate(without, 3)
	case counts[ejected] > 0:
		v.Level, v.Title = "degraded", some(counts[ejected], "ejected")
	case limited > 0:
		v.Title = some(limited, "rate-limited")
	case counts[drained] > 0:
		v.Title = some(counts[drained], "drained")
	case all == 1:
		v.Title = "The deployment is available"
	default:
		v.Title = "All " + number(all) + " deployments available"
	}
	switch {
	case v.Level == "down" && !due.IsZero():
		v.Due, v.Until = "The first one is due in", due.UnixMilli()
		v.Fields["due"] = dueText(v.Due, due, time.UnixMilli(v.Time))
	case v.Level != "down" && all > 0:
		v.Fields["models"] = "Every model has an available deployment"
	}
}

// enumerate joins the first of some texts.
func enumerate(all []string, most int) string {
	if len(all) > most {
		return strings.Join(all[:most], ", ") + " and " + number(len(all)-most) + " more"
	}
	return strings.Join(all, ", ")
}

func countText(counts []int) string {
	var parts []string
	for i, n := range counts {
		if n > 0 {
			parts = append(parts, number(n)+" "+strings.ToLower(states[i].Word))
		}
	}
	return strings.Join(parts, ", ")
}

// deploymentsOf yields the deployments of a tier. A backend that has not been asked for
// any model has one without a model.
func deploymentsOf(t *spillover.TierStatus) func(func(*spillover.DeploymentStatus, *spillover.BackendStatus) bool) {
	return func(yield func(*spillover.DeploymentStatus, *spillover.BackendStatus) bool) {
		for i := range t.Backends {
			b := &t.Backends[i]
			if len(b.Deployments) == 0 && !yield(&spillover.DeploymentStatus{Available: b.Available, Until: b.Until, Reason: b.Reason, LastFailure: b.LastFailure}, b) {
				return
			}
			for j := range b.Deployments {
				if !yield(&b.Deployments[j], b) {
					return
				}
			}
		}
	}
}

// omittedRows returns the ids of deployments beyond the first maxRows. Those with a
// problem come first.
func omittedRows(s spillover.Status, now time.Time) (ids []string) {
	var problems, others []string
	for i := range s.Tiers {
		for d, b := range deploymentsOf(&s.Tiers[i]) {
			if state, _, _ := stateOf(b, d, now); state == available {
				others = append(others, idOf(b, d))
			} else {
				problems = append(problems, idOf(b, d))
			}
		}
	}
	all := slices.Concat(problems, others)
	return all[min(maxRows, len(all)):]
}

func rowOf(b *spillover.BackendStatus, d *spillover.DeploymentStatus, now time.Time) row {
	index, until, why := stateOf(b, d, now)
	s := states[index]
	r := row{ID: idOf(b, d), State: s.ID, Open: index == ejected, Due: s.Due, Fields: fields{
		"model": modelOf(b, d), "backend": b.Name, "url": hostOf(b.URL),
		"word": s.Word, "why": why,
		"in_flight": number(d.InFlight), "served": number(d.Served), "throttled": number(d.Throttled), "failed": number(d.Failed),
		"input": compact(float64(d.InputTokens)), "output": compact(float64(d.OutputTokens)), "utilization": "–",
	}}
	if d.Name != "" && d.Name != d.Model {
		r.Fields["deployment"] = d.Name
	}
	if !until.IsZero() {
		r.Until = until.UnixMilli()
		r.Fields["due"] = dueText(s.Due, until, now)
	}
	if utilization, ok := utilizationOf(d, now); ok {
		n := int(utilization*100 + 0.5)
		r.Utilization = &n
		r.Fields["utilization"] = number(n) + " %"
	}
	if f := d.LastFailure; !f.Time.IsZero() {
		r.FailedAt = f.Time.UnixMilli()
		r.Fields["failed_ago"] = duration(now.Sub(f.Time)) + " ago"
		r.Fields["failure"] = failureText(f, why)
		r.Fields["message"] = f.Cause
	}
	return r
}

// failureText is the reason of a failure, its status and its time, without what is shown
// already.
func failureText(f spillover.Failure, why string) string {
	var parts []string
	if f.Reason != why {
		parts = append(parts, f.Reason)
	}
	if status := strconv.Itoa(f.Status); f.Status != 0 && !strings.HasPrefix(f.Reason, status) {
		parts = append(parts, "HTTP "+status)
	}
	return strings.Join(append(parts, f.Time.UTC().Format("2006-01-02 15:04:05 UTC")), " · ")
}

func dueText(what string, until, now time.Time) string {
	if !until.After(now) {
		return "due now"
	}
	return what + " " + duration(until.Sub(now))
}

// anyModel is the model of a backend that has not been asked for a model yet.
const anyModel = "any model"

func modelOf(b *spillover.BackendStatus, d *spillover.DeploymentStatus) string {
	switch {
	case len(b.Deployments) == 0:
		return anyModel
	case d.Model == "":
		return "requests without a model"
	case d.Model == "*":
		return "other models"
	}
	return d.Model
}

// hostOf shortens a URL to what tells backends apart.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	return u.Host + strings.TrimSuffix(u.Path, "/")
}

func fleetOf(f *spillover.FleetStatus, now time.Time) *fleetView {
	if f == nil {
		return nil
	}
	v := &fleetView{Rows: []replicaRow{}, Fields: fields{
		"replica": f.Name, "heard": plural(len(f.Replicas), "other replica"), "sent": number(f.Sent), "received": number(f.Received), "ignored": number(f.Ignored),
	}}
	for i, r := range f.Replicas {
		if i == maxRows {
			v.Fields["omitted"] = plural(len(f.Replicas)-maxRows, "more replica") + " in status.json"
			break
		}
		s := replicaRow{ID: "r-" + r.Name, Heard: r.Heard.UnixMilli(), State: "available", Fields: fields{"name": r.Name, "word": "Heard", "ago": duration(now.Sub(r.Heard)) + " ago"}}
		if r.Ignored {
			s.State, s.Fields["word"] = "drained", "Ignored: its reports were wrong"
		}
		v.Rows = append(v.Rows, s)
	}
	return v
}
