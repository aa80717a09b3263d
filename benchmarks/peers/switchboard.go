package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/spillover-go/spillover"
)

// The benchmark of azure-switchboard: simultaneous requests, spread over equal deployments.
const (
	burstTPM, burstRPM = 30000, 300
	burstTokens        = 84 // of a request in the base's answer; azure-switchboard's README reports 83 to 85
)

// A spread is how bursts were distributed over the deployments, and what that took.
type spread struct {
	name string
	// Utilization of a deployment: the larger of the shares of TPM and RPM. The average, the lowest and highest of any
	// deployment in any burst, and the median of the bursts' standard deviations.
	average, low, high, deviation float64
	// From the start of the first request until the last one has reached the base, divided by the number of requests;
	// the least of all bursts. 0: not comparable.
	overhead time.Duration
}

// A crowd is a base that holds all requests of a burst until each has arrived.
type crowd struct {
	mu      sync.Mutex
	began   atomic.Bool // before, requests are answered immediately
	counts  map[string]int
	missing atomic.Int64
	arrived chan time.Time // when the last one has
	release chan struct{}
}

func newCrowd(n int) *crowd {
	c := &crowd{counts: map[string]int{}, arrived: make(chan time.Time, 1), release: make(chan struct{})}
	c.missing.Store(int64(n))
	return c
}

func (c *crowd) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := memory(req)
	if !c.began.Load() {
		return resp, err
	}
	c.mu.Lock()
	c.counts[req.URL.Host]++
	c.mu.Unlock()
	if c.missing.Add(-1) == 0 {
		c.arrived <- time.Now()
	}
	<-c.release
	return resp, err
}

// bursts sends bursts through each of the candidates in turn.
func bursts(ctx context.Context, s settings, b *bifrost, a serviceAddresses) ([]spread, error) {
	limited := model
	limited.RPM, limited.TPM = burstRPM, burstTPM
	withLimits := peerNamed(ours)
	withLimits.build = func(p pool) (http.RoundTripper, func(), error) { return newTransport(p, spillover.Azure, limited) }
	underSDK := withLimits
	underSDK.name = oursUnderSDK
	candidates := []peer{peerNamed(cloned), peerNamed(roundRob), twoChoices(), withLimits, underSDK}
	overheads, counts := make([][]usage, len(candidates)), make([][]map[string]int, len(candidates)+1)
	for range s.bursts {
		for i, k := range candidates {
			took, count, err := burst(ctx, s, k, k.name == underSDK.name)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", k.name, err)
			}
			overheads[i] = append(overheads[i], usage{Clock: took / time.Duration(s.burst)})
			counts[i] = append(counts[i], count)
		}
		if b != nil {
			count, err := b.burst(ctx, s, a)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", underBifrost, err)
			}
			counts[len(candidates)] = append(counts[len(candidates)], count)
		}
	}
	var all []spread
	for i, k := range candidates {
		all = append(all, newSpread(k.name, s.backends, counts[i], least(overheads[i], func(u usage) time.Duration { return u.Clock })))
	}
	if b != nil {
		all = append(all, newSpread(underBifrost, s.backends, counts[len(candidates)], 0))
	}
	return all, nil
}

// oursUnderSDK is the transport with the SDK that callers use, which encodes requests and decodes responses.
const oursUnderSDK = "spillover under openai-go"

// askSDK returns a function that asks for a chat completion with OpenAI's SDK for Go.
func askSDK(ctx context.Context, rt http.RoundTripper, scheme string) func(text string) error {
	client := openai.NewClient(
		option.WithBaseURL(scheme+"://api.example.com/v1"), option.WithAPIKey("key"), option.WithMaxRetries(0),
		option.WithHTTPClient(&http.Client{Transport: rt}),
	)
	return func(text string) error {
		_, err := client.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{
			Model: "gpt-4o", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)},
		})
		return err
	}
}

// burst sends all requests at the same time. A response comes when all have been sent.
func burst(ctx context.Context, s settings, k peer, sdk bool) (time.Duration, map[string]int, error) {
	base := newCrowd(s.burst)
	var m mounts
	defer m.end()
	rt, request, err := m.add(ctx, k, pool{base, "https", s.backends}, 64)
	if err != nil {
		return 0, nil, err
	}
	if err := send(rt, request()); err != nil { // httplb resolves the name of the first request
		return 0, nil, err
	}
	base.began.Store(true)
	one := func(int) error { return send(rt, request()) }
	if sdk {
		ask := askSDK(ctx, rt, "https")
		one = func(i int) error { return ask(fmt.Sprintf("Can you tell me a fact about the number %d?", i)) }
	}
	var sent sync.WaitGroup
	failed := make(chan error, s.burst)
	begun := time.Now()
	for i := range s.burst {
		sent.Go(func() {
			if err := one(i); err != nil {
				failed <- err
			}
		})
	}
	var took time.Duration
	select {
	case at := <-base.arrived:
		took = at.Sub(begun)
	case err = <-failed:
	}
	close(base.release)
	sent.Wait()
	if err == nil && len(failed) > 0 {
		err = <-failed
	}
	return took, base.counts, err
}

// burst sends a burst with Bifrost, to a service that answers late.
func (b *bifrost) burst(ctx context.Context, s settings, a serviceAddresses) (map[string]int, error) {
	const delay = time.Second / 2
	at := a.endpoints()[0]
	if _, err := get(ctx, fmt.Sprintf("%s/reset?delay=%d", at.url(), delay)); err != nil {
		return nil, err
	}
	if _, err := b.do(work{URL: at.url(), Backends: s.backends, Body: 64, Requests: s.burst, Burst: true}); err != nil {
		return nil, err
	}
	text, err := get(ctx, at.url()+"/counts")
	if err != nil {
		return nil, err
	}
	if _, err := get(ctx, at.url()+"/reset"); err != nil {
		return nil, err
	}
	var counts map[string]int
	return counts, json.Unmarshal(text, &counts)
}

func newSpread(name string, backends int, counts []map[string]int, overhead time.Duration) spread {
	s := spread{name: name, overhead: overhead, low: math.Inf(1)}
	var deviations []float64
	for _, count := range counts {
		var sum, squares float64
		used := make([]float64, 0, backends)
		for _, n := range count {
			used = append(used, max(float64(n)/burstRPM, float64(n*burstTokens)/burstTPM))
		}
		for len(used) < backends {
			used = append(used, 0)
		}
		for _, u := range used {
			s.low, s.high = min(s.low, u), max(s.high, u)
			sum += u
		}
		average := sum / float64(backends)
		for _, u := range used {
			squares += (u - average) * (u - average)
		}
		s.average += average / float64(len(counts))
		deviations = append(deviations, math.Sqrt(squares/float64(backends)))
	}
	slices.Sort(deviations)
	s.deviation = deviations[len(deviations)/2]
	return s
}
