package spillover

import (
	"context"
	"math"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/fleet"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/wire"
)

// A replica is this Transport among the others of its Fleet: it tells them what it has
// learned, and hears what they have. What it hears only orders deployments, see
// [health.Reports].
type replica struct {
	fleet     Fleet
	namespace string
	name      string // random
	trust     fleet.Trust
	inForce   func() *table // nil if there is none yet, or any more
	cancel    func()        // ends the subscription
	random    func() uint64

	hearing sync.RWMutex    // held while a notice is applied
	ctx     context.Context // until it has left
	end     context.CancelFunc

	mu       sync.Mutex
	kept     map[keptKey]keptNotice // about deployments that no request has asked for yet
	recalled map[string]bool        // the places of the configuration in force

	sent, received, ignored atomic.Uint64
	second                  atomic.Int64 // in Unix seconds, of the notices that are counted
	inSecond                atomic.Int64
}

// A keptKey is what a notice is kept under: of each place, one notice of each kind.
type keptKey struct {
	place string
	kind  fleet.Kind
}

// A keptNotice is a notice and when it was heard.
type keptNotice struct {
	fleet.Notice
	heard time.Time
}

const (
	// maxKeptNotices limits the notices that are kept for deployments without requests.
	maxKeptNotices = 1024
	// tellUtilization is the utilization from which on replicas are told of it, in
	// thousandths, and utilizationInterval the time between two notices of all replicas.
	tellUtilization     = 700
	utilizationInterval = 500 * time.Millisecond
	// maxNoticesPerSecond limits the notices that are read. The replicas of a large
	// program send about ten.
	maxNoticesPerSecond = 1000
	// reprobeTime is the shortest time, on average, that replicas leave to the one that has
	// ejected a deployment, to probe it and to tell what it has found out.
	reprobeTime = 8 * time.Second
	// recallTime is what Recall may take.
	recallTime = 5 * time.Second
	// replicaSeen is for how long Status shows a replica that sends nothing.
	replicaSeen = 10 * time.Minute
	// utilizationSlack is by how much a report of utilization may exceed what the service
	// says a moment later, in thousandths, before it counts as wrong.
	utilizationSlack = 300
)

// newReplica joins the fleet of a configuration; nil if it has none. inForce is the
// table in force, nil if there is none.
func newReplica(cfg *Config, random func() uint64, inForce func() *table) *replica {
	if cfg.Fleet == nil {
		return nil
	}
	r := &replica{fleet: cfg.Fleet, namespace: cfg.FleetNamespace, name: fleet.SenderOf(random()), random: random, inForce: inForce}
	r.ctx, r.end = context.WithCancel(context.Background())
	r.cancel = r.fleet.Subscribe(r.hear)
	return r
}

// belongsTo reports whether the replica is part of the Fleet of a configuration.
func (r *replica) belongsTo(cfg *Config) bool {
	return r != nil && cfg.Fleet != nil && reflect.TypeOf(cfg.Fleet).Comparable() && cfg.Fleet == r.fleet && cfg.FleetNamespace == r.namespace
}

// leave ends the replica's part in the fleet: it tells and hears nothing any more, even
// if the fleet goes on calling it.
func (r *replica) leave() {
	if r == nil {
		return
	}
	r.hearing.Lock()
	r.end()
	r.hearing.Unlock()
	if r.cancel != nil {
		r.cancel()
	}
}

// recall hears, in the background, what still holds of what was published of the places
// of a table before this replica knew them.
func (r *replica) recall(t *table) {
	if r == nil {
		return
	}
	var keys []string
	known := map[string]bool{}
	for _, route := range t.all() {
		for d := range route.all {
			for _, place := range r.placesOf(d) {
				if !known[place] && !r.recalled[place] {
					keys = append(keys, place)
				}
				known[place] = true
			}
		}
	}
	r.recalled = known
	if len(keys) == 0 {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(r.ctx, recallTime)
		defer cancel()
		for _, n := range r.recallKeys(ctx, keys) {
			r.hear(n)
		}
	}()
}

// recallKeys is Recall of the fleet, with nothing for an error. A panic counts as one:
// nobody could recover from it.
func (r *replica) recallKeys(ctx context.Context, keys []string) (notices [][]byte) {
	defer func() {
		if recover() != nil {
			notices = nil
		}
	}()
	notices, err := r.fleet.Recall(ctx, keys)
	if err != nil {
		return nil
	}
	return notices
}

// placesOf are the places of a deployment.
func (r *replica) placesOf(d *deployment) *[noticePlaceCount]string {
	b := d.backend
	key := b.currentKey().secret
	if p := d.noticePlaces.Load(); p != nil && p.key == key {
		return &p.names
	}
	host, credential := strings.ToLower(b.host), key
	if b.token != nil {
		credential = "token"
	}
	p := &noticePlaces{key, [noticePlaceCount]string{
		placeDeployment: fleet.PlaceOf(r.namespace, "deployment", b.scheme, host, b.base, d.name),
		placeCredential: fleet.PlaceOf(r.namespace, "credential", b.scheme, host, b.base, d.name, credential),
		placeBackend:    fleet.PlaceOf(r.namespace, "backend", b.scheme, host, b.base),
		placeDrain:      fleet.PlaceOf(r.namespace, "drain", b.scheme, host, b.base),
	}}
	d.noticePlaces.Store(p)
	return &p.names
}

// tell publishes a notice.
func (r *replica) tell(n fleet.Notice) {
	if r.ctx.Err() != nil {
		return
	}
	r.sent.Add(1)
	n.From = r.name
	r.fleet.Publish(n.Append(make([]byte, 0, 160)))
}

// hear applies a notice to the deployments that it is about.
func (r *replica) hear(text []byte) {
	r.hearing.RLock()
	defer r.hearing.RUnlock()
	t := r.inForce()
	if t == nil || r.ctx.Err() != nil {
		return
	}
	now := time.Now()
	n, err := fleet.Parse(text)
	if n.From == r.name {
		return
	}
	if err != nil || r.tooMany(now) || !r.trust.Hears(now, n.From) {
		r.ignored.Add(1)
		return
	}
	r.received.Add(1)
	r.keep(now, &n)
	for _, route := range t.all() {
		for d := range route.all {
			r.applyAt(d, now, &n)
		}
	}
}

// applyAt applies a notice if it is about a deployment.
func (r *replica) applyAt(d *deployment, now time.Time, n *fleet.Notice) {
	for i, place := range r.placesOf(d) {
		if place == n.Place {
			r.apply(d, now, n, i == placeBackend)
		}
	}
}

// keep remembers a notice for deployments that have no route yet, as nobody has asked
// for their model.
func (r *replica) keep(now time.Time, n *fleet.Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch n.Kind {
	case fleet.Recovered:
		delete(r.kept, keptKey{n.Place, fleet.Ejected})
		delete(r.kept, keptKey{n.Place, fleet.Throttled})
		return
	case fleet.Resumed:
		delete(r.kept, keptKey{n.Place, fleet.Drained})
		return
	}
	if r.kept == nil {
		r.kept = map[keptKey]keptNotice{}
	}
	if len(r.kept) >= maxKeptNotices {
		for key, k := range r.kept {
			if now.Sub(k.heard) >= k.Left() {
				delete(r.kept, key)
			}
		}
	}
	key := keptKey{n.Place, n.Kind}
	earlier, known := r.kept[key]
	if known && earlier.heard.Add(earlier.Left()).After(now.Add(n.Left())) {
		return
	}
	if known || len(r.kept) < maxKeptNotices {
		r.kept[key] = keptNotice{*n, now}
	}
}

// adopt applies what was heard of the deployments of a new route.
func (r *replica) adopt(route *route) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for d := range route.all {
		for _, place := range r.placesOf(d) {
			for _, kind := range [...]fleet.Kind{fleet.Throttled, fleet.Ejected, fleet.Utilization, fleet.Drained} {
				if k, ok := r.kept[keptKey{place, kind}]; ok {
					age := now.Sub(k.heard).Milliseconds()
					k.LeftMS, k.AgeMS = k.LeftMS-age, k.AgeMS+age
					r.applyAt(d, now, &k.Notice)
				}
			}
		}
	}
}

// tooMany reports whether more notices have arrived in this second than are read.
func (r *replica) tooMany(now time.Time) bool {
	if second := now.Unix(); r.second.Swap(second) != second {
		r.inSecond.Store(0)
	}
	return r.inSecond.Add(1) > maxNoticesPerSecond
}

// apply records what another replica says of a deployment, or of its whole backend.
func (r *replica) apply(d *deployment, now time.Time, n *fleet.Notice, wholeBackend bool) {
	switch n.Kind {
	case fleet.Throttled:
		// All replicas hear of the end of the wait at the same time: each adds some of its
		// own gap between requests.
		extra := time.Duration((0.5 + unit(r.random())) * float64(d.Gap()))
		d.Reports.Report(now, n.From, health.ReportThrottled, n.Left()+extra, 0)
	case fleet.Ejected:
		// The replica that has ejected it probes first. All others wait for what it finds out.
		extra := time.Duration((0.5 + unit(r.random())) * float64(max(n.Left()/2, reprobeTime)))
		d.Reports.Report(now, n.From, health.ReportEjected, n.Left()+extra, n.Streak)
	case fleet.Recovered:
		if n.Contradicts != "" && n.Contradicts != r.name {
			r.trust.Witness(now, n.From, n.Contradicts, d.Reports.Says(now, n.Contradicts, health.ReportEjected))
		}
		if d.Reports.End(health.ReportEjected); !wholeBackend {
			d.Reports.End(health.ReportThrottled)
		}
	case fleet.Utilization:
		d.ReportedLimits.HearUtilization(now.Add(-n.Age()), min(max(n.Utilization, 0), math.MaxInt32), n.From)
		d.utilizationTold.Set(now)
	case fleet.Drained:
		d.Reports.Report(now, n.From, health.ReportDrained, n.Left(), 0)
	case fleet.Resumed:
		d.Reports.End(health.ReportDrained)
	}
}

// tellThrottled tells the others that a deployment has refused a request of this
// replica, unless another one has told them that it will for as long.
func (r *replica) tellThrottled(d *deployment, now, sent time.Time, wait time.Duration) {
	if r == nil {
		return
	}
	r.trust.Confirmed(d.Reports.Confirm(now, health.ReportThrottled))
	if d.Reports.Known(health.ReportThrottled, now.Add(wait)) {
		return
	}
	r.tell(fleet.Notice{Kind: fleet.Throttled, Place: r.placesOf(d)[placeDeployment], LeftMS: ceilMS(wait), AgeMS: ceilMS(now.Sub(sent))})
}

// tellEjected tells the others that a deployment was ejected.
func (r *replica) tellEjected(h *health.State, d *deployment, now, sent time.Time, o outcome) {
	if r == nil || h.Private {
		return
	}
	r.trust.Confirmed(d.Reports.Confirm(now, health.ReportEjected))
	until, _, _ := h.Closed(now)
	streak, _ := h.Failures()
	if !until.After(now) {
		return
	}
	place := placeDeployment
	switch {
	case h == &d.backend.State:
		place = placeBackend
	case o.cause.NeedsChange() && !o.noDeployment:
		place = placeCredential
	}
	for i, one := range d.Operations {
		if one == h && d.ServedOperations.Load()&^(1<<i) != 0 {
			return // other operations are served
		}
	}
	r.tell(fleet.Notice{Kind: fleet.Ejected, Place: r.placesOf(d)[place], LeftMS: ceilMS(until.Sub(now)), AgeMS: ceilMS(now.Sub(sent)),
		Cause: causeNames[o.cause], Streak: streak})
}

// causeNames are for people who read notices.
var causeNames = map[health.Cause]string{
	health.ServerFailure: "5xx", health.NoAnswer: "no answer", health.Blocked: "blocked", health.Silent: "silent",
	health.Unreachable: "no connection", health.Misconfigured: "credential", health.OutOfQuota: "quota",
}

// tellRecovered tells the others that a deployment has served a request, if that ends
// what this replica has told or heard. opened says that the success ended a cool-down or
// an ejection here; ejected says that it was an ejection, of which the others may know
// under another place.
func (r *replica) tellRecovered(d *deployment, now, sent time.Time, opened, ejected bool) {
	if r == nil {
		return
	}
	ejected = ejected || d.Reports.Known(health.ReportEjected, now)
	wrong := d.Reports.Contradict(now, sent)
	if len(wrong) == 0 && !opened {
		return
	}
	r.trust.Contradicted(now, wrong)
	p := r.placesOf(d)[:placeDrain]
	if !ejected {
		p = p[:1+placeDeployment]
	}
	for i, place := range p {
		n := fleet.Notice{Kind: fleet.Recovered, Place: place}
		if len(wrong) > 0 {
			n.Contradicts = wrong[i%len(wrong)]
		}
		r.tell(n)
	}
}

// tellUtilization tells the others how much of a PTU is used, and finds out whether they
// have told the truth.
func (r *replica) tellUtilization(d *deployment, now, sent time.Time, l wire.Limits) {
	if r == nil || !l.HasUtilization {
		return
	}
	if from := d.ReportedLimits.Exaggerated(sent, l.Utilization+utilizationSlack); from != "" {
		r.trust.Contradicted(now, []string{from})
	}
	if l.Utilization < tellUtilization || d.utilizationTold.Age(now) < utilizationInterval {
		return
	}
	d.utilizationTold.Set(now)
	r.tell(fleet.Notice{Kind: fleet.Utilization, Place: r.placesOf(d)[placeDeployment], AgeMS: ceilMS(now.Sub(sent)), Utilization: l.Utilization})
}

// maxFleetDrain is the longest time for which a backend is drained everywhere.
const maxFleetDrain = time.Hour

// drain tells the others that a backend is taken out of use, or, for no time, that it is
// back.
func (r *replica) drain(d *deployment, wait time.Duration) {
	n := fleet.Notice{Kind: fleet.Drained, Place: r.placesOf(d)[placeDrain], LeftMS: ceilMS(wait)}
	if wait <= 0 {
		n.Kind = fleet.Resumed
	}
	r.tell(n)
}

func ceilMS(d time.Duration) int64 {
	return int64((max(d, 0) + time.Millisecond - 1) / time.Millisecond)
}
