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

// variant is a Transport with a change to what it is told of each backend.
func variant(name, about string, change func(*spillover.Backend, Backend)) Policy {
	return Policy{Name: name, About: about, Waits: true, New: func(s Setup) http.RoundTripper {
		cfg := spillover.Config{Base: s.Net, MaxWait: s.Patience, BackgroundWait: s.BackgroundWait}
		for _, b := range s.Pool {
			to := spillover.Backend{
				Name: b.Name, URL: b.URL, Priority: b.Tier, Weight: b.Weight, Dialect: spillover.Azure,
				HeaderTimeout: s.HeaderTimeout,
				Models:        []spillover.Model{{Name: model}},
			}
			change(&to, b)
			cfg.Backends = append(cfg.Backends, to)
		}
		t, err := spillover.New(cfg)
		if err != nil {
			panic(err)
		}
		return t
	}}
}
