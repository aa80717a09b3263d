package spillover_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"

	"github.com/spillover-go/spillover"
)

// Watch runs in a goroutine until the transport is closed.
func ExampleTransport_Watch() {
	for _, name := range []string{"PTU_KEY", "EASTUS_KEY", "WESTUS_KEY", "OPENAI_KEY"} {
		os.Setenv(name, "key")
	}
	cfg, err := spillover.Load("docs/spillover.yaml")
	if err != nil {
		log.Fatal(err)
	}
	lb, err := spillover.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	// A backend that is added to the file later has no Token yet.
	adjust := func(cfg *spillover.Config) {
		for i := range cfg.Backends {
			if b := &cfg.Backends[i]; b.APIKey == "" && b.Token == nil {
				b.Token = func(context.Context) (string, error) { return "from Entra ID", nil }
			}
		}
	}
	watched := make(chan error)
	go func() { watched <- lb.Watch(context.Background(), "docs/spillover.yaml", adjust) }()
	lb.Close()
	fmt.Println(errors.Is(<-watched, net.ErrClosed))
	// Output: true
}
