package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Publish puts a notice into a buffer, from which it is sent. It never blocks. If 64
// notices wait, the oldest is dropped. Empty notices and those of more than 256 bytes
// are dropped. The slice is not kept.
func (e *Engine) Publish(notice []byte) {
	switch {
	case e.ctx.Err() != nil:
	case len(notice) == 0, len(notice) > maxNotice:
		e.health.count(droppedSize, 1)
	default:
		e.health.count(droppedFull, e.outbox.push(string(notice)))
	}
}

// publishUntilClosed is the goroutine that writes to Redis. It begins with a test message,
// which opens the connection: this may take longer than a notice may.
func (e *Engine) publishUntilClosed() {
	var b breaker
	test, due := time.NewTimer(0), true
	defer test.Stop()
	for {
		var r result
		select {
		case <-e.ctx.Done():
			if rest := e.outbox.all(); !b.open() && len(rest) > 0 {
				e.send(rest)
			}
			return
		case <-test.C:
			due = false
			r = e.sendTest()
		case first := <-e.outbox:
			batch := e.outbox.all(first)
			if b.open() {
				e.health.count(droppedUnavailable, len(batch))
				continue
			}
			r = e.send(batch)
		}
		if e.ctx.Err() != nil {
			continue
		}
		err := b.record(r)
		e.health.report(publishing, err)
		switch {
		case err == nil:
			test.Stop()
			due = false
		case !due:
			test.Reset(b.pause())
			due = true
		}
	}
}

// A result is that of an attempt to publish.
type result struct {
	published error
	tried     bool // to store something
	stored    error
}

// send publishes notices and stores those that hold for a while, in one round trip.
// Storing comes first, so that a replica that subscribes after the message finds the
// notice.
func (e *Engine) send(notices []string) (r result) {
	defer recovered(&r.published)
	ctx, cancel := context.WithTimeout(context.Background(), e.timeout)
	defer cancel()
	pipe := e.client.Pipeline()
	var storing []goredis.Cmder
	publishing := make([]*goredis.IntCmd, len(notices))
	for i, notice := range notices {
		if command := e.store(ctx, pipe, notice); command != nil {
			storing = append(storing, command)
		}
		publishing[i] = pipe.Publish(ctx, e.channel, notice)
	}
	_, _ = pipe.Exec(ctx) // each command has its error
	sent := 0
	for _, p := range publishing {
		if p.Err() == nil {
			sent++
		}
		r.published = firstError(r.published, p.Err())
	}
	for _, s := range storing {
		r.tried, r.stored = true, firstError(r.stored, s.Err())
	}
	e.health.count(sentNotices, sent)
	e.health.count(droppedFailed, len(notices)-sent)
	return r
}

// sendTest does with an empty message what send does with notices. Receivers ignore it.
func (e *Engine) sendTest() (r result) {
	defer recovered(&r.published)
	ctx, cancel := context.WithTimeout(e.ctx, openFactor*e.timeout)
	defer cancel()
	pipe := e.client.Pipeline()
	stored := pipe.Set(ctx, e.key("test"), "", time.Second)
	published := pipe.Publish(ctx, e.channel, "")
	_, _ = pipe.Exec(ctx)
	return result{published.Err(), true, stored.Err()}
}

// store adds the command that stores a notice, or deletes the stored one, if there is
// anything to store. The last one about a place replaces the earlier ones.
func (e *Engine) store(ctx context.Context, pipe goredis.Pipeliner, notice string) goredis.Cmder {
	var n struct {
		Kind  string `json:"k"`
		Place string `json:"p"`
		Left  int64  `json:"l"` // in milliseconds
	}
	if json.Unmarshal([]byte(notice), &n) != nil || n.Place == "" {
		return nil
	}
	switch n.Kind {
	case "throttled", "ejected", "drained":
		if n.Left < minKept.Milliseconds() {
			return nil
		}
		left := time.Duration(min(n.Left, maxKept.Milliseconds())) * time.Millisecond
		return pipe.Set(ctx, e.key(n.Place), notice, left)
	case "recovered", "resumed":
		return pipe.Del(ctx, e.key(n.Place))
	}
	return nil
}

func (e *Engine) key(place string) string { return e.channel + ":" + place }

// A breaker decides when publishing is tried.
type breaker struct {
	failures int   // of publishing, in a row
	unstored error // of the last attempt to store something
	pauses   int   // since everything worked
}

// open reports whether nothing is published.
func (b *breaker) open() bool { return b.failures >= failuresToOpen }

// record takes the result of an attempt. It returns what does not work; nil if everything
// does.
func (b *breaker) record(r result) error {
	if b.failures++; r.published == nil {
		b.failures = 0
	}
	if r.tried {
		b.unstored = r.stored
	}
	err := firstError(r.published, b.unstored)
	if err == nil {
		b.pauses = 0
	}
	return err
}

// pause returns the time until the next test message.
func (b *breaker) pause() time.Duration {
	b.pauses++
	return pause(b.pauses - 1)
}

// pause is the time before another attempt: a second, which doubles with each
// repetition up to 30 s. It is shortened by up to a quarter at random, so that replicas do
// not all connect to a restarted server at the same moment.
func pause(repetitions int) time.Duration {
	longest := min(firstPause<<min(repetitions, 10), longestPause)
	return longest - time.Duration(rand.Int64N(int64(longest/4)))
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// recovered makes an error of a panic: a reply that the client does not expect must not
// end the program.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("fleet/redis: the client panicked: %v", p)
	}
}
