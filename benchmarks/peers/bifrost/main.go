// Command bifrost does requests with Bifrost's core, for the comparison in the directory above. It reads what to do from
// its standard input, a line of JSON for each measurement, and writes what that took.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	bifrost "github.com/maximhq/bifrost/core"
	"github.com/maximhq/bifrost/core/schemas"
)

// A work is what is measured.
type work struct {
	URL      string // of the deployments
	Backends int
	Body     int // bytes of the message
	Requests int
	Burst    bool // all at the same time
}

// A usage is what one request took.
type usage struct {
	Clock, Processor time.Duration
	Allocs, Bytes    float64
	Error            string `json:",omitempty"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bifrost:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	answers := json.NewEncoder(out)
	if err := answers.Encode(map[string]string{"Version": version()}); err != nil {
		return err
	}
	clients := map[string]*bifrost.Bifrost{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var w work
		if err := json.Unmarshal(lines.Bytes(), &w); err != nil { //nolint:musttag // the names of the fields, as in ../service.go
			return err
		}
		key := fmt.Sprint(w.URL, " ", w.Backends)
		client := clients[key]
		if client == nil {
			var err error
			if client, err = newClient(w); err != nil {
				return err
			}
			clients[key] = client
		}
		u, err := measure(client, w)
		if err != nil {
			u.Error = err.Error()
		}
		if err := answers.Encode(u); err != nil { //nolint:musttag // as above
			return err
		}
	}
	return lines.Err()
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/maximhq/bifrost/core" {
				return m.Version
			}
		}
	}
	return "unknown"
}

// An account has one key for each deployment of Azure, which is how Bifrost addresses several.
type account work

func (a account) GetConfiguredProviders() ([]schemas.ModelProvider, error) {
	return []schemas.ModelProvider{schemas.Azure}, nil
}

func (a account) GetConfigForProvider(schemas.ModelProvider) (*schemas.ProviderConfig, error) {
	return &schemas.ProviderConfig{
		NetworkConfig: schemas.DefaultNetworkConfig, ConcurrencyAndBufferSize: schemas.DefaultConcurrencyAndBufferSize,
	}, nil
}

func (a account) GetKeysForProvider(context.Context, schemas.ModelProvider) ([]schemas.Key, error) {
	var all []schemas.Key
	for i := range a.Backends {
		name := fmt.Sprintf("b%d", i)
		all = append(all, schemas.Key{
			ID: name, Name: name, Value: *schemas.NewEnvVar(name), Models: []string{"gpt-4o"}, Weight: 1,
			AzureKeyConfig: &schemas.AzureKeyConfig{
				Endpoint: *schemas.NewEnvVar(a.URL), Deployments: map[string]string{"gpt-4o": "gpt-4o-east"},
			},
		})
	}
	return all, nil
}

func newClient(w work) (*bifrost.Bifrost, error) {
	return bifrost.Init(context.Background(), schemas.BifrostConfig{Account: account(w), Logger: bifrost.NewDefaultLogger(schemas.LogLevelError)})
}

// measure sends the requests, one after the other or all at the same time.
func measure(client *bifrost.Bifrost, w work) (usage, error) {
	text := strings.Repeat("all work and no play ", max(1, w.Body/21))
	one := func() error {
		_, err := client.ChatCompletionRequest(schemas.NewBifrostContext(context.Background(), schemas.NoDeadline), &schemas.BifrostChatRequest{
			Provider: schemas.Azure, Model: "gpt-4o",
			Input: []schemas.ChatMessage{{Role: schemas.ChatMessageRoleUser, Content: &schemas.ChatMessageContent{ContentStr: &text}}},
		})
		if err == nil {
			return nil
		}
		if err.Error != nil {
			return fmt.Errorf("%s (%w)", err.Error.Message, err.Error.Error)
		}
		return errors.New("an error without a text")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begun, used := time.Now(), processorTime()
	var failed error
	if w.Burst {
		var all sync.WaitGroup
		errs := make([]error, w.Requests)
		for i := range errs {
			all.Go(func() { errs[i] = one() })
		}
		all.Wait()
		failed = errors.Join(errs...)
	} else {
		for range w.Requests {
			if failed = one(); failed != nil {
				break
			}
		}
	}
	clock, processor := time.Since(begun), processorTime()-used
	runtime.ReadMemStats(&after)
	n := time.Duration(w.Requests)
	return usage{
		Clock: clock / n, Processor: processor / n,
		Allocs: float64(after.Mallocs-before.Mallocs) / float64(n), Bytes: float64(after.TotalAlloc-before.TotalAlloc) / float64(n),
	}, failed
}
