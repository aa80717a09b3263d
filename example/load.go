package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// A chat is one request: when it comes, and how large it is in tokens.
type chat struct {
	at             time.Duration
	prompt, output int
	stream         bool
}

// cost is what it takes of a PTU, where an output token weighs three.
func (c chat) cost() int { return c.prompt + 3*c.output }

// A phase is a part of a load that has a name.
type phase struct {
	from time.Duration
	name string
}

// A load is chats in the order of their arrival.
type load struct {
	about  string
	chats  []chat
	phases []phase
	length time.Duration
}

// phases of the default load: how much of the time, and chats in a second.
// The PTU takes some 25.
var phases = []struct {
	share, rate float64
	name        string
}{
	{0.25, 15, "calm: less than the PTU can serve"},
	{0.35, 45, "busy: more than the PTU can serve"},
	{0.08, 400, "burst: more than all deployments can serve"},
	{0.32, 12, "calm again"},
}

// day is a working day in a few seconds: arrivals by chance, sizes as chats
// have them, all of it decided by the seed.
func day(length time.Duration, seed uint64) load {
	random := rand.New(rand.NewPCG(seed, 0))
	size := func(median, spread, most float64) int {
		return int(min(median*math.Exp(spread*random.NormFloat64()), most))
	}
	l := load{
		about:  fmt.Sprintf("%g s of go-openai chats, JSON and streamed, seed %d", length.Seconds(), seed),
		length: length,
	}
	var from time.Duration
	for _, p := range phases {
		l.phases = append(l.phases, phase{from, p.name})
		end := from + time.Duration(p.share*float64(length))
		gap := func() time.Duration { return time.Duration(random.ExpFloat64() / p.rate * float64(time.Second)) }
		for at := from + gap(); at < end; at += gap() {
			l.chats = append(l.chats, chat{
				at: at, prompt: size(400, 0.7, 2000), output: 1 + size(80, 0.6, 400), stream: random.IntN(2) == 0,
			})
		}
		from = end
	}
	return l
}

// phase is the name of the phase at a time.
func (l load) phase(at time.Duration) string {
	name := ""
	for _, p := range l.phases {
		if at >= p.from {
			name = p.name
		}
	}
	return name
}

// play asks each chat at its time and waits for all answers. Nobody asks again
// after a 429, so that each that reached a caller is counted once. When ctx
// ends no more chats come.
func (p *pool) play(ctx context.Context, start time.Time, l load) {
	var callers sync.WaitGroup
	defer callers.Wait()
	for _, c := range l.chats {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(start.Add(c.at))):
		}
		callers.Go(func() { p.ask(c) })
	}
}

// maxPrompt bounds the prompts sent, in tokens: beyond it they would show
// nothing but the speed of loopback.
const maxPrompt = 4096

// filler is what prompts are made of, by four characters to a token.
var filler = strings.Repeat("all work and no wait makes a fine day. ", 4*maxPrompt/39+1)
