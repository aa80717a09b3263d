package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// An Event is one thing that happens to deployments which are otherwise well, and
// the requests that come thereafter. How many of these are served needs no
// statistics. Play must be called in a testing/synctest bubble.
type Event struct {
	Name     string
	Requests int
	Play     func(Policy) (served int)
}

// Events are all of them.
func Events() []Event {
	const ms, s = time.Millisecond, time.Second
	return []Event{
		{"one refusal that took 50 ms, hint 6 s: served of the 15 s from then on", 300, lateWord(50 * ms)},
		{"… that took 2 s", 300, lateWord(2 * s)},
		{"… that took 30 s", 300, lateWord(30 * s)},
		{"60 at once, two of three deployments refuse", 60, crowd},
		{"PTU throttled, then one poisonous request, then ten others", 10, afterPoison(1)},
		{"… then two poisonous requests, then ten others", 10, afterPoison(2)},
		{"all six fail for 3 s, then 90 at once, 20 each", 90, afterOutage},
	}
}

// A reply is what a deployment of an event does with a request.
type reply struct {
	takes  time.Duration
	status int // 0: the connection is reset
	hint   time.Duration
}

// A stage is the deployments of an event, which reply as a script says.
type stage func(host string, poison bool) reply

func (s stage) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Body.Close()
	poison, _ := r.Context().Value(poisonKey{}).(bool)
	reply := s(r.URL.Host, poison)
	if err := sleep(r.Context(), reply.takes); err != nil {
		return nil, err
	}
	if reply.status == 0 {
		return nil, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	}
	resp := refuse(r, int((reply.hint+time.Second-1)/time.Second))
	resp.StatusCode = reply.status
	resp.Header.Set("Content-Type", "application/json")
	if reply.hint == 0 {
		resp.Header.Del("Retry-After")
	} else {
		resp.Header.Set("Retry-After-Ms", strconv.Itoa(int(reply.hint.Milliseconds())))
	}
	return resp, nil
}

// client is one of a policy, over so many deployments of each tier: 1a, 1b, 2a.
func (s stage) client(p Policy, tiers ...int) http.RoundTripper {
	setup := Setup{Net: s, Seed: 1}
	for i, n := range tiers {
		for k := range n {
			name := fmt.Sprintf("%d%c", i+1, 'a'+k)
			setup.Pool = append(setup.Pool, Backend{Name: name, URL: "https://" + name, host: name, Tier: i + 1, Weight: 1})
		}
	}
	return p.New(setup)
}

type poisonKey struct{}

// request asks once and tells whether it was served.
func request(client http.RoundTripper, poison bool) bool {
	ctx := context.WithValue(context.Background(), poisonKey{}, poison)
	status, _ := ask(ctx, client, job{prompt: 10, most: 16})
	return status == http.StatusOK
}

// requests asks so many times at a distance and counts what is served.
func requests(client http.RoundTripper, n int, apart time.Duration) (served int) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if request(client, false) {
				mu.Lock()
				defer mu.Unlock()
				served++
			}
		})
		time.Sleep(apart)
	}
	all.Wait()
	return served
}

var well = reply{takes: 50 * time.Millisecond, status: http.StatusOK}

// lateWord is a deployment that refused one request, which took it a while.
func lateWord(takes time.Duration) func(Policy) int {
	return func(p Policy) int {
		const hint = 6 * time.Second
		refused := false
		client := stage(func(string, bool) reply {
			if !refused {
				refused = true
				return reply{takes, http.StatusTooManyRequests, hint}
			}
			return well
		}).client(p, 1)
		request(client, false)
		time.Sleep(hint)
		return requests(client, 300, 50*time.Millisecond)
	}
}

// crowd is many requests at once, for which one deployment of three has room.
func crowd(p Policy) int {
	client := stage(func(host string, _ bool) reply {
		if host == "1c" {
			return reply{takes: time.Second, status: http.StatusOK}
		}
		return reply{20 * time.Millisecond, http.StatusTooManyRequests, 5 * time.Second}
	}).client(p, 3)
	return requests(client, 60, 0)
}

// afterPoison is requests after some that broke every connection, while the PTU
// is throttled.
func afterPoison(n int) func(Policy) int {
	return func(p Policy) int {
		client := stage(func(host string, poison bool) reply {
			switch {
			case host == "1a":
				return reply{20 * time.Millisecond, http.StatusTooManyRequests, 30 * time.Second}
			case poison:
				return reply{takes: resetAfter}
			}
			return well
		}).client(p, 1, 3)
		request(client, false)
		for range n {
			request(client, true)
		}
		return requests(client, 10, 20*time.Millisecond)
	}
}

// afterOutage is many requests at once when all deployments have just come back.
// Each takes so many at a time.
func afterOutage(p Policy) int {
	const most = 20
	var mu sync.Mutex
	failing, busy := true, map[string]int{}
	client := stage(func(host string, _ bool) reply {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case failing:
			return reply{takes: 20 * time.Millisecond, status: http.StatusInternalServerError}
		case busy[host] == most:
			return reply{20 * time.Millisecond, http.StatusTooManyRequests, 5 * time.Second}
		}
		busy[host]++ // until long after
		return reply{takes: 5 * time.Second, status: http.StatusOK}
	}).client(p, 6)
	requests(client, 30, 100*time.Millisecond)
	mu.Lock()
	failing = false
	mu.Unlock()
	return requests(client, 90, 0)
}

// eventTimes is how often an event is played: policies have chance of their own.
const eventTimes = 5
