package lab

import (
	"math"
	"math/rand/v2"
	"time"
)

// A job is one request of the load.
type job struct {
	at     time.Duration
	client int
	prompt int // tokens
	most   int // its max_tokens
	output int // what the model will write, at most that
	stream bool
	poison bool // whoever gets it breaks the connection
	late   bool // it takes very long wherever it is sent

	background bool // of the class; see Mix
}

// odd tells of a request that does not count, as it fails or lasts wherever it is
// sent: what counts is what it does to the others.
func (j job) odd() bool { return j.poison || j.late }

// A shape is how large requests are: prompts and outputs are lognormal.
type shape struct {
	prompt, promptSigma float64
	output, outputSigma float64
	most                []int
	mean                cost // of a request
}

var (
	chats  = shape{prompt: 800, promptSigma: 1, output: 200, outputSigma: 0.8, most: []int{256, 512, 1024, 2048}}.measured()
	shorts = shape{prompt: 60, promptSigma: 0.5, output: 20, outputSigma: 0.5, most: []int{16, 32, 64}}.measured()
)

// longest is where prompts are cut.
const longest = 50_000

func (s shape) draw(rng *rand.Rand) job {
	lognormal := func(median, sigma float64) int {
		return int(math.Ceil(median * math.Exp(sigma*rng.NormFloat64())))
	}
	j := job{
		prompt: min(lognormal(s.prompt, s.promptSigma), longest),
		most:   s.most[rng.IntN(len(s.most))],
		stream: rng.IntN(2) == 0,
	}
	j.output = min(lognormal(s.output, s.outputSigma), j.most)
	return j
}

// A cost is what a request takes of each kind of limit, in tokens.
type cost struct{ payg, ptu float64 }

func (j job) cost() cost {
	return cost{payg: float64(j.prompt + j.most), ptu: float64(j.prompt + 3*j.output)}
}

func (j job) tokens() float64 { return float64(j.prompt + j.output) }

// mean is the cost of a request on average.
func mean(jobs []job) cost {
	var sum cost
	for _, j := range jobs {
		c := j.cost()
		sum.payg += c.payg
		sum.ptu += c.ptu
	}
	n := float64(len(jobs))
	return cost{sum.payg / n, sum.ptu / n}
}

// measured is the shape with its mean, which has no formula: outputs are cut.
func (s shape) measured() shape {
	rng := rand.New(rand.NewPCG(0, 0))
	sample := make([]job, 50_000)
	for i := range sample {
		sample[i] = s.draw(rng)
	}
	s.mean = mean(sample)
	return s
}

// How bursts come: so much more load for so long, so often.
const (
	burstLoad   = 1.6
	burstLength = 10 * time.Second
	burstEvery  = 70 * time.Second
)

// poisson draws arrivals at a rate on average, with bursts, until the end.
func poisson(rng *rand.Rand, s shape, rate float64, end time.Duration) []job {
	share := float64(burstLength) / float64(burstEvery)
	calm := rate / (1 + share*(burstLoad-1))
	about := func(d time.Duration) time.Duration {
		return time.Duration((0.8 + 0.4*rng.Float64()) * float64(d))
	}
	var jobs []job
	burst := about(burstEvery - burstLength)
	over := burst + about(burstLength)
	for at := time.Duration(0); ; {
		now := calm
		if at >= burst {
			now *= burstLoad
		}
		at += time.Duration(rng.ExpFloat64() / now * float64(time.Second))
		if at >= end {
			return jobs
		}
		if at >= over {
			burst = over + about(burstEvery-burstLength)
			over = burst + about(burstLength)
		}
		j := s.draw(rng)
		j.at = at
		jobs = append(jobs, j)
	}
}

// even is requests that are all alike, at equal distances.
func even(j job, rate float64, end time.Duration) []job {
	var jobs []job
	for i := 0; ; i++ {
		j.at = time.Duration(float64(i) / rate * float64(time.Second))
		if j.at >= end {
			return jobs
		}
		jobs = append(jobs, j)
	}
}
