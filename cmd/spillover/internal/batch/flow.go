package batch

import (
	"container/list"
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// How many requests of a model are in flight.
const (
	// firstLimit is the number at the start.
	firstLimit = 8
	// DefaultMaxInFlight is how far it grows if Options.MaxInFlight is 0.
	DefaultMaxInFlight = 1000
	// limitCut is what remains of it after a request has waited for all tiers, was
	// refused or has failed.
	limitCut = 0.8
	// maxFlows bounds the models that are limited on their own. Names of models come
	// from the input.
	maxFlows = 1000
)

// A flow limits the requests in flight of one model. The limit adapts itself as that of
// TCP does (slow start and AIMD). It grows by one with each answer, so that it doubles
// about once per response time, up to where it was cut after the last refusal, and by
// one per response time above. A request that had to wait for all tiers, was refused or
// has failed cuts it, once per response time: more requests would not be faster. After a
// refusal nothing is sent for as long as it asks.
type flow struct {
	mu       sync.Mutex
	limit    float64
	most     float64
	slowFrom float64 // from this limit on, it grows by one per response time
	inFlight int
	lastCut  time.Time
	paused   time.Time   // until then
	timer    *time.Timer // ends the pause
	waiting  list.List   // of chan struct{}
	denied   int         // answers in a row that were denials
	held     []answer    // those of them that may not be the fault of the request
	allowed  bool        // an answer was not a denial
}

func newFlow(most int) *flow {
	return &flow{limit: float64(min(firstLimit, most)), most: float64(most), slowFrom: float64(most)}
}

// acquire waits until a request may be sent. A request that has been refused goes
// before the others.
func (f *flow) acquire(ctx context.Context, again bool) error {
	f.mu.Lock()
	granted := make(chan struct{})
	var e *list.Element
	if again {
		e = f.waiting.PushFront(granted)
	} else {
		e = f.waiting.PushBack(granted)
	}
	f.admit()
	f.mu.Unlock()
	select {
	case <-granted:
		if ctx.Err() == nil {
			return nil
		}
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-granted:
		f.inFlight--
		f.admit()
	default:
		f.waiting.Remove(e)
	}
	return ctx.Err()
}

// admit lets requests go as far as limit and pause allow.
func (f *flow) admit() {
	if pause := time.Until(f.paused); pause > 0 {
		if f.timer == nil && f.waiting.Len() > 0 {
			f.timer = time.AfterFunc(pause, func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.timer = nil
				f.admit()
			})
		}
		return
	}
	for f.waiting.Len() > 0 && f.inFlight < int(f.limit) {
		close(f.waiting.Remove(f.waiting.Front()).(chan struct{}))
		f.inFlight++
	}
}

// cut reduces the limit, once for all requests that were sent with the same one.
func (f *flow) cut(begun, now time.Time, least float64) {
	if begun.Before(f.lastCut) || f.limit < least {
		return
	}
	f.lastCut = now
	f.limit = max(f.limit*limitCut, least)
	f.slowFrom = f.limit
}

// result is how a request that was sent at begun has ended.
type result int

const (
	resultAnswered result = iota // also if the answer is an error of the request itself
	resultWaited                 // answered, after it waited for all tiers
	resultRefused                // 429
	resultFailed                 // 5xx or no response
	resultLeft                   // nothing is known, since it was canceled
)

// release ends what acquire began. pause is how long a refusal asks to wait.
func (f *flow) release(begun time.Time, r result, pause time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	used := float64(f.inFlight) >= f.limit/2 // otherwise the limit does not matter
	f.inFlight--
	now, slow := time.Now(), f.slowFrom
	switch r {
	case resultAnswered:
		switch {
		case !used:
		case f.limit < f.slowFrom:
			f.limit++
		default:
			f.limit += 1 / f.limit
		}
		f.limit = min(f.limit, f.most)
	case resultWaited:
		f.cut(begun, now, firstLimit)
	case resultRefused, resultFailed:
		f.cut(begun, now, 1)
		if r == resultFailed {
			f.slowFrom = slow
		}
		if until := now.Add(pause); until.After(f.paused) {
			f.paused = until
		}
	}
	f.admit()
}

// maxDenied is after how many denials in a row a batch ends.
const maxDenied = 20

// isDenial reports whether a status means that the deployment, or the access to it, may
// be wrong: then every request of its model gets the same answer.
func isDenial(status int) bool {
	return status == http.StatusForbidden || status == http.StatusNotFound
}

// settle takes the answer to a request, and returns the answers that are final now. A
// denial is held back until a request of the model is answered otherwise. After maxDenied
// denials in a row, only the model's name may be wrong: other models are answered, and this
// one never was. Then the denials are final. Otherwise they are dropped, and denied is true.
func (f *flow) settle(a answer, denial bool, anyAllowed *atomic.Bool) (final []answer, denied bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = append(f.held, a)
	if denial {
		f.denied++
	} else {
		f.denied, f.allowed = 0, true
		anyAllowed.Store(true)
	}
	if denial && f.denied < maxDenied {
		return nil, false
	}
	final, f.held = f.held, nil
	if denial && (f.allowed || !anyAllowed.Load()) {
		return nil, true
	}
	return final, false
}

// flows are the flows of all models.
type flows struct {
	mu      sync.Mutex
	most    int
	byModel map[string]*flow
	allowed atomic.Bool // a request of any model was not denied
}

func (f *flows) of(model string) *flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byModel == nil {
		f.byModel = map[string]*flow{}
	}
	if len(f.byModel) >= maxFlows && f.byModel[model] == nil {
		model = ""
	}
	if f.byModel[model] == nil {
		f.byModel[model] = newFlow(f.most)
	}
	return f.byModel[model]
}

// held are the denials that are still held back.
func (f *flows) held() (all []answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, flow := range f.byModel {
		all = append(all, flow.held...)
	}
	return all
}

// A window bounds the lines that are in memory: how many, and how long they are
// together. One line may enter whatever its length.
type window struct {
	mu          sync.Mutex
	count, size int
	maxCount    int
	maxSize     int
	freed       chan struct{} // with a buffer of 1, for the one who waits
}

func newWindow(maxCount, maxSize int) *window {
	return &window{maxCount: maxCount, maxSize: maxSize, freed: make(chan struct{}, 1)}
}

// enter waits until a line fits. It is called by one goroutine.
func (w *window) enter(ctx context.Context, size int) error {
	for {
		w.mu.Lock()
		if w.count == 0 || w.count < w.maxCount && w.size+size <= w.maxSize {
			w.count++
			w.size += size
			w.mu.Unlock()
			return nil
		}
		w.mu.Unlock()
		select {
		case <-w.freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *window) leave(size int) {
	w.mu.Lock()
	w.count--
	w.size -= size
	w.mu.Unlock()
	select {
	case w.freed <- struct{}{}:
	default:
	}
}
