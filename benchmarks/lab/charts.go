package lab

import (
	"fmt"
)

// charts are the report's, by the name of their file.
func (r *Results) charts(tracePath string) map[string]chart {
	const withHeader = "spillover + utilization"
	m := map[string]chart{
		"waste-rho.svg": {
			title: "Wasted attempts by load", about: "429s at the deployments per request served. B = 10, M = 8. What is above 2 is cut off.",
			x: "offered load over capacity", labels: labels("%g", rhos), format: "%.1f", top: 2,
			series: compare(rhos, func(rho float64, policy string) float64 { return r.value(at(10, 8, rho), policy, wasted) }),
		},
		"waste-m.svg": {
			title: "Wasted attempts by number of clients", about: "429s at the deployments per request served. B = 10, ρ = 0.9.",
			x: "clients that know nothing of each other", labels: labels("M = %d", clients), format: "%.1f", bars: true,
			series: append([]series{one(withHeader, clients, func(m int) float64 { return r.value(telling(m, 0.9), Ours().Name, wasted) })},
				compare(clients, func(m int, policy string) float64 { return r.value(at(10, m, 0.9), policy, wasted) })...),
		},
		"ptu.svg": {
			title: "Use of the PTU by load", about: "Tokens served by the PTU over the oracle's. B = 10, M = 8. Dashed: the goal, 0.995.",
			x: "offered load over capacity", labels: labels("%g", rhos), format: "%.2f", goal: 0.995,
			series: compare(rhos, func(rho float64, policy string) float64 { return r.share(at(10, 8, rho), policy, ptu) }),
		},
		"rejects.svg": {
			title: "Goodput where rejected requests count against the limit", about: "Short requests, ρ = 0.9, B = 10: retries alone can keep the windows full.",
			x: "clients that know nothing of each other", labels: labels("M = %d", clients), format: "%.2f", bars: true, top: 1,
			series: compare(clients, func(m int, policy string) float64 { return r.value(vicious(m), policy, goodput) }),
		},
		"fault.svg": r.faultChart(faulty("401", true)),
	}
	if tracePath != "" {
		m["trace.svg"] = chart{
			title: "A production hour, replayed", about: "429s at the deployments per request served. B = 5, M = 8, arrivals and sizes of the trace.",
			x: "speed", labels: labels("× %g", speeds), format: "%.1f", bars: true,
			series: compare(speeds, func(speed float64, policy string) float64 {
				return r.value(replay(tracePath, speed), policy, wasted)
			}),
		}
	}
	return m
}

// faultChart shows what callers got while a deployment was bad.
func (r *Results) faultChart(c Cell) chart {
	const step = 10 // seconds
	var steps []int
	for s := 0; s < int((c.Warm + c.Measure).Seconds()); s += step {
		steps = append(steps, s)
	}
	return chart{
		title: "Callers with an error while the PTU answers 401",
		about: fmt.Sprintf("Share of requests, every %d seconds. The PTU is bad from %.0f s to %.0f s. B = 10, M = 8, ρ = 0.6.", step, c.Fault.From.Seconds(), c.Fault.To.Seconds()),
		x:     "seconds", labels: labels("%d", steps), format: "%.2f", top: 1,
		series: compare(steps, func(from int, policy string) float64 {
			line := r.Figures[trial(c, policy)].Timeline
			var sum Second
			for i := from; i < min(from+step, len(line)); i++ {
				sum.Requests += line[i].Requests
				sum.Errors += line[i].Errors
			}
			return float64(sum.Errors) / float64(max(1, sum.Requests))
		}),
	}
}

// compare is a series for each policy.
func compare[T any](xs []T, of func(x T, policy string) float64) []series {
	var all []series
	for _, p := range Compared() {
		all = append(all, one(p.Name, xs, func(x T) float64 { return of(x, p.Name) }))
	}
	return all
}

func one[T any](name string, xs []T, of func(T) float64) series {
	s := series{name: name}
	for _, x := range xs {
		s.values = append(s.values, of(x))
	}
	return s
}

func labels[T any](format string, xs []T) []string {
	var all []string
	for _, x := range xs {
		all = append(all, fmt.Sprintf(format, x))
	}
	return all
}
