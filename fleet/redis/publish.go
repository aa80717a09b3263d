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
	test := time.NewTimer(0)
	defer test.Stop()
	for {
		var published, stored error
		select {
		case <-e.ctx.Done():
			if rest := e.outbox.all(); !b.open() && len(rest) > 0 {
				_, _ = e.send(e.timeout, rest)
			}
			return
		case <-test.C:
			published, stored = e.send(openFactor*e.timeout, nil)
		case first := <-e.outbox:
			batch := e.outbox.all(first)
			if b.open() {
				e.health.count(droppedUnavailable, len(batch))
				continue
			}
			published, stored = e.send(e.timeout, batch)
		}
		if e.ctx.Err() == nil {
			e.health.report(publishing, firstError(published, stored))
		}
		if pause := b.record(published, stored); pause > 0 {
			test.Reset(pause)
		} else {
			test.Stop()
		}
	}
}

// send publishes notices and stores those that hold for a while, in one round trip.
// Without notices it sends a test message, which uses the same commands. Storing comes
// first, so that a replica that subscribes after the message finds the notice.
func (e *Engine) send(limit time.Duration, notices []string) (published, stored error) {
	defer recovered(&published)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	pipe := e.client.Pipeline()
	if len(notices) == 0 {
		test := pipe.Set(ctx, e.key("test"), "", time.Second)
		message := pipe.Publish(ctx, e.channel, "")
		_, _ = pipe.Exec(ctx) // each command has its error
		return message.Err(), test.Err()
	}
	var storing []goredis.Cmder
	publications := make([]*goredis.IntCmd, len(notices))
	for i, notice := range notices {
		if command := e.store(ctx, pipe, notice); command != nil {
			storing = append(storing, command)
		}
		publications[i] = pipe.Publish(ctx, e.channel, notice)
	}
	_, _ = pipe.Exec(ctx)
	sent := 0
	for _, p := range publications {
		if p.Err() == nil {
			sent++
		}
		published = firstError(published, p.Err())
	}
	for _, s := range storing {
		stored = firstError(stored, s.Err())
	}
	e.health.count(sentNotices, sent)
	e.health.count(droppedFailed, len(notices)-sent)
	return published, stored
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
	failures int // of publishing, in a row
	problems int // of publishing or storing, in a row
}

// open reports whether nothing is published.
func (b *breaker) open() bool { return b.failures >= failuresToOpen }

// record takes the result of an attempt. It returns the time until a test message is
// due, 0 if none is.
func (b *breaker) record(published, stored error) time.Duration {
	if published == nil && stored == nil {
		*b = breaker{}
		return 0
	}
	b.problems++
	if b.failures++; published == nil {
		b.failures = 0
	}
	return pause(b.problems - failuresToOpen)
}

// pause is the time before the next attempt: a second, which doubles with each
// repetition up to 30 s. It is shortened by up to a quarter at random, so that replicas do not
// all connect to a restarted server at the same moment.
func pause(repetitions int) time.Duration {
	longest := min(firstPause<<min(max(repetitions, 0), 10), longestPause)
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
