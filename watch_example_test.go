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

// Beside whatever the program does. What a file cannot say is set each time.
func ExampleTransport_Watch() {
	adjust := func(cfg *spillover.Config) {
		for i := range cfg.Backends {
			if cfg.Backends[i].APIKey == "" {
				cfg.Backends[i].Token = func(context.Context) (string, error) { return "from Entra ID", nil }
			}
		}
	}
	for _, name := range []string{"PTU_KEY", "EASTUS_KEY", "WESTUS_KEY", "OPENAI_KEY"} {
		os.Setenv(name, "key")
	}
	cfg, err := spillover.Load("docs/spillover.yaml")
	if err != nil {
		log.Fatal(err)
	}
	adjust(&cfg)
	lb, err := spillover.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	watched := make(chan error)
	go func() { watched <- lb.Watch(context.Background(), "docs/spillover.yaml", adjust) }()
	lb.Close()
	fmt.Println(errors.Is(<-watched, net.ErrClosed))
	// Output: true
}
