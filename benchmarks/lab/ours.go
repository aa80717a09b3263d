package lab

import (
	"net/http"

	"github.com/spillover-go/spillover"
)

// Variants are ours: the transport as it is, first, and what becomes of it when
// it is told more or less, or a part is taken out. To compare an ablation, add
// it here; -policy takes its name, and the report has a table of them.
func Variants() []Policy {
	return []Policy{
		variant("spillover", "the Transport, deployments weighted by size", func(*spillover.Backend, Backend) {}),
		variant("spillover-unweighted", "told nothing of sizes, which it may learn", func(b *spillover.Backend, _ Backend) {
			b.Weight = 0
		}),
		variant("spillover-limits", "told the limits of each deployment", func(b *spillover.Backend, about Backend) {
			if about.Tier == 2 {
				b.Models[0].TPM, b.Models[0].RPM = about.TPM, about.RPM
			}
		}),
	}
}

// Ours is the transport as it is.
func Ours() Policy { return Variants()[0] }

// Replicas is the transport as it is, with a Fleet that connects the clients of a cell.
var Replicas = Policy{Name: "fleet", About: "the Transport, whose clients share a Fleet", Waits: true, Fleet: true, New: func(s Setup) http.RoundTripper {
	t, err := spillover.New(configFor(s))
	if err != nil {
		panic(err)
	}
	return t
}}

// configFor is the configuration of a setup.
func configFor(s Setup) spillover.Config {
	cfg := spillover.Config{Base: s.Net, MaxWait: s.Patience, BackgroundWait: s.BackgroundWait, Fleet: s.Fleet}
	for _, b := range s.Pool {
		cfg.Backends = append(cfg.Backends, spillover.Backend{
			Name: b.Name, URL: b.URL, Priority: b.Tier, Weight: b.Weight, Dialect: spillover.Azure,
			APIKey: "key", HeaderTimeout: s.HeaderTimeout,
			Models: []spillover.Model{{Name: model}},
		})
	}
	return cfg
}

// variant is a Transport with a change to what it is told of each backend.
func variant(name, about string, change func(*spillover.Backend, Backend)) Policy {
	return Policy{Name: name, About: about, Waits: true, New: func(s Setup) http.RoundTripper {
		cfg := configFor(s)
		for i, b := range s.Pool {
			change(&cfg.Backends[i], b)
		}
		t, err := spillover.New(cfg)
		if err != nil {
			panic(err)
		}
		return t
	}}
}
