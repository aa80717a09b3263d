package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// A chat is one request: when it is sent, and its size in tokens.
type chat struct {
	at             time.Duration
	prompt, output int
	stream         bool
}

// cost is the part of a PTU's capacity that it uses, where an output token
// counts as three.
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

// phases of the standard load: how long, and chats in a second.
var phases = []struct {
	length time.Duration
	rate   float64
	name   string
}{
	{30 * time.Second, 8, "calm: less than the PTU can serve"},
	{40 * time.Second, 25, "busy: twice what the PTU can serve"},
	{10 * time.Second, 90, "burst: more than all deployments can serve"},
	{40 * time.Second, 8, "calm again"},
}

// standardLoad is two minutes with random arrivals and sizes. A seed always
// gives the same load.
func standardLoad(seed uint64) load {
	random := rand.New(rand.NewPCG(seed, 0))
	size := func(median, spread, most float64) int {
		return int(min(median*math.Exp(spread*random.NormFloat64()), most))
	}
	var l load
	for _, p := range phases {
		l.phases = append(l.phases, phase{l.length, p.name})
		end := l.length + p.length
		gap := func() time.Duration { return time.Duration(random.ExpFloat64() / p.rate * float64(time.Second)) }
		for at := l.length + gap(); at < end; at += gap() {
			l.chats = append(l.chats, chat{
				at: at, prompt: size(400, 0.7, 2000), output: 1 + size(80, 0.6, 400), stream: random.IntN(2) == 0,
			})
		}
		l.length = end
	}
	l.about = fmt.Sprintf("chats, seed %d", seed)
	return l
}

// first is the beginning of a load.
func (l load) first(length time.Duration) load {
	n := 0
	for n < len(l.chats) && l.chats[n].at < length {
		n++
	}
	l.chats, l.length = l.chats[:n], min(l.length, length)
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

// maxPrompt limits the prompts, in tokens: longer ones would only take longer
// to simulate.
const maxPrompt = 4096

// filler is the text of all prompts: four characters are one token.
var filler = strings.Repeat("all work and no wait makes a fine day. ", 4*maxPrompt/39+1)
