package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// A subscriber has a buffer and a goroutine of its own, so that none waits for another.
type subscriber struct {
	f     func(notice []byte)
	inbox queue
}

// Subscribe calls f with each notice that arrives, including those of this Engine, one
// at a time, until cancel is called. A call that has begun may end after cancel
// returns. If 256 notices wait for f, the oldest is dropped. After a connection has been
// restored, f also gets what Recall would return. If f panics, the panic is logged, and
// f is called with the next notice.
func (e *Engine) Subscribe(f func(notice []byte)) (cancel func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return func() {}
	}
	s := &subscriber{f: f, inbox: make(queue, inboxSize)}
	e.subscribers[s] = true
	ctx, end := context.WithCancel(e.ctx)
	e.running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case notice := <-s.inbox:
				if ctx.Err() == nil {
					e.call(s.f, notice)
				}
			}
		}
	})
	return func() {
		end()
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subscribers, s)
	}
}

func (e *Engine) call(f func([]byte), notice string) {
	defer func() {
		if p := recover(); p != nil {
			e.health.logPanic(p)
		}
	}()
	f([]byte(notice))
}

// deliver passes a notice to all subscribers.
func (e *Engine) deliver(notice string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.subscribers {
		e.health.count(droppedSlow, s.inbox.push(notice))
	}
}

// receiveUntilClosed is the goroutine that reads from Redis.
func (e *Engine) receiveUntilClosed() {
	for failures := 0; ; failures++ {
		subscribed, err := e.receive()
		if e.ctx.Err() != nil {
			return
		}
		e.health.report(receiving, err)
		if subscribed {
			failures = 0
		}
		select {
		case <-e.ctx.Done():
			return
		case <-time.After(pause(failures)):
		}
	}
}

// receive opens the subscription and reads until it fails. It reports whether the
// server has confirmed the subscription.
func (e *Engine) receive() (subscribed bool, err error) {
	defer recovered(&err)
	subscription := e.client.Subscribe(e.ctx)
	defer subscription.Close()
	defer context.AfterFunc(e.ctx, func() { _ = subscription.Close() })()
	if err := e.open(subscription); err != nil {
		return false, err
	}
	pinged := false
	for {
		limit := idleTime
		if pinged || !subscribed {
			limit = openFactor * e.timeout
		}
		message, err := subscription.ReceiveTimeout(e.ctx, limit)
		switch {
		case err != nil && subscribed && !pinged && isTimeout(err):
			if err := e.ping(subscription); err != nil {
				return subscribed, err
			}
			pinged = true
			continue
		case err != nil:
			return subscribed, err
		}
		pinged = false
		switch message := message.(type) {
		case *goredis.Subscription:
			subscribed = true
			e.health.report(receiving, nil)
			e.missed.Store(true)
		case *goredis.Message:
			e.receiveNotice(message.Payload)
		}
		if e.missed.Swap(false) {
			e.recallMissed()
		}
	}
}

func (e *Engine) open(subscription *goredis.PubSub) error {
	ctx, cancel := context.WithTimeout(e.ctx, openFactor*e.timeout)
	defer cancel()
	return subscription.Subscribe(ctx, e.channel)
}

func (e *Engine) ping(subscription *goredis.PubSub) error {
	ctx, cancel := context.WithTimeout(e.ctx, e.timeout)
	defer cancel()
	return subscription.Ping(ctx)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// receiveNotice handles a message of the channel. An empty one is a test message.
func (e *Engine) receiveNotice(notice string) {
	switch {
	case notice == "":
	case len(notice) > maxNotice:
		e.health.count(droppedSize, 1)
	default:
		e.health.count(receivedNotices, 1)
		e.deliver(notice)
	}
}

// Recall returns the stored notices about places that still hold, each with the
// remaining time in its field l. It takes at most ten times the Timeout of the Options.
// The Engine remembers the places, at most 4096: when the connection is restored, or if
// Recall fails, it reads them again and passes the result to the subscribers. The error
// wraps that of the client, or the context's.
func (e *Engine) Recall(ctx context.Context, places []string) ([][]byte, error) {
	if !e.remember(places) || len(places) == 0 {
		return nil, nil
	}
	notices, err := e.recall(ctx, places)
	if err != nil {
		e.missed.Store(true)
		return nil, fmt.Errorf("fleet/redis: reading stored notices: %w", err)
	}
	return notices, nil
}

// remember adds places to those that are read again. It returns false if the Engine is
// closed.
func (e *Engine) remember(places []string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.places)+len(places) > maxPlaces {
		clear(e.places)
	}
	for _, place := range places[:min(len(places), maxPlaces)] {
		e.places[place] = true
	}
	return !e.closed
}

// recallMissed passes to the subscribers what was stored while nothing was received. If
// it fails, it is tried again with the next message, or when the subscription is idle.
func (e *Engine) recallMissed() {
	e.mu.Lock()
	places := make([]string, 0, len(e.places))
	for place := range e.places {
		places = append(places, place)
	}
	e.mu.Unlock()
	if len(places) == 0 {
		return
	}
	notices, err := e.recall(e.ctx, places)
	if e.ctx.Err() != nil {
		return
	}
	e.health.report(recalling, err)
	if err != nil {
		e.missed.Store(true)
		return
	}
	for _, notice := range notices {
		e.receiveNotice(string(notice))
	}
}

// recall reads the notices about places in one round trip.
func (e *Engine) recall(ctx context.Context, places []string) (notices [][]byte, err error) {
	defer recovered(&err)
	ctx, cancel := context.WithTimeout(ctx, openFactor*e.timeout)
	defer cancel()
	pipe := e.client.Pipeline()
	places = slices.Clone(places)
	slices.Sort(places)
	places = slices.Compact(places)
	values := make([]*goredis.StringCmd, len(places))
	left := make([]*goredis.DurationCmd, len(places))
	for i, place := range places {
		// Somebody else may have stored a value of any size.
		values[i] = pipe.GetRange(ctx, e.key(place), 0, maxNotice)
		left[i] = pipe.PTTL(ctx, e.key(place))
	}
	_, _ = pipe.Exec(ctx) // each command has its error
	for i := range places {
		err := firstError(values[i].Err(), left[i].Err())
		switch {
		case goredis.HasErrorPrefix(err, "WRONGTYPE"): // not stored by an Engine
			continue
		case err != nil:
			return nil, err
		}
		if notice := withLeft(values[i].Val(), left[i].Val()); notice != nil {
			notices = append(notices, notice)
		}
	}
	return notices, nil
}

// withLeft sets the field l of a notice to the time for which it still holds. It returns nil
// for what is not a notice, or holds no longer.
func withLeft(notice string, left time.Duration) []byte {
	var fields map[string]json.RawMessage
	if left < time.Millisecond || len(notice) > maxNotice || json.Unmarshal([]byte(notice), &fields) != nil || fields == nil {
		return nil
	}
	fields["l"] = strconv.AppendInt(nil, left.Milliseconds(), 10)
	text, err := json.Marshal(fields)
	if err != nil || len(text) > maxNotice {
		return nil
	}
	return text
}
