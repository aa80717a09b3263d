package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	urfave "github.com/urfave/cli/v3"

	"github.com/spillover-go/spillover"
)

func explainCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "explain",
		Usage: "show where a request would go, and why",
		Description: "Nothing is sent. The answer follows from the configuration alone: this process knows nothing of rate limits " +
			"and failures that a running server has seen. Between equal deployments of a tier the choice is random, " +
			"so another run may choose another one.\n\n" +
			"Exit codes: 0 a deployment takes the request; 1 none does, so the response is an error; 2 the file or the request is wrong.",
		Flags: []urfave.Flag{
			configFlag(),
			&urfave.StringFlag{Name: "model", Usage: "the `NAME` of the model that the caller asks for"},
			&urfave.StringFlag{Name: "in", Usage: "a `FILE` with the JSON body of the request, - for standard input; without it a short prompt for the model", TakesFile: true},
			&urfave.StringFlag{Name: "dialect", Value: string(spillover.OpenAI), Usage: "the `DIALECT` of the caller: openai, azure or azure-v1"},
			&urfave.StringFlag{Name: "path", Usage: "the `PATH` of the request instead of that for chat completions, such as /v1/embeddings"},
			&urfave.StringFlag{Name: "method", Value: http.MethodPost, Usage: "the HTTP `METHOD` of the request"},
			&urfave.StringFlag{Name: "class", Usage: "the `CLASS` of the request: interactive or background"},
			&urfave.StringSliceFlag{Name: "tag", Usage: "a `TAG` that the backend must have; can be repeated"},
			&urfave.StringFlag{Name: "session", Usage: "the `ID` of the session, for session affinity"},
			&urfave.BoolFlag{Name: "json", Usage: "print JSON instead of text"},
		},
		Action: explain,
	}
}

func explain(ctx context.Context, cmd *urfave.Command) error {
	if err := noArguments(cmd); err != nil {
		return err
	}
	in, err := explainedRequest(ctx, cmd)
	if err != nil {
		return err
	}
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	lb, err := spillover.New(cfg)
	if err != nil {
		return wrong(err)
	}
	defer lb.Close()
	trail, err := lb.Explain(in)
	if err != nil {
		return wrong(err)
	}
	if cmd.Bool("json") {
		err = printJSON(cmd.Root().Writer, trail)
	} else {
		err = printTrail(cmd.Root().Writer, trail)
	}
	if err == nil && trail.Backend == "" && trail.Status != 0 {
		return failed()
	}
	return err
}

// explainedRequest makes the request that the flags describe.
func explainedRequest(ctx context.Context, cmd *urfave.Command) (*http.Request, error) {
	model, dialect := cmd.String("model"), spillover.Dialect(cmd.String("dialect"))
	path := cmd.String("path")
	switch {
	case model == "" && cmd.String("in") == "" && path == "":
		return nil, usageError(cmd, errors.New("-model or -in is required"))
	case path != "" && !strings.HasPrefix(path, "/"):
		return nil, usageError(cmd, fmt.Errorf("-path: %q does not begin with /", path))
	case path != "":
	case dialect == spillover.OpenAI:
		path = "/v1/chat/completions"
	case dialect == spillover.AzureV1:
		path = "/openai/v1/chat/completions"
	case dialect == spillover.Azure && model == "":
		return nil, usageError(cmd, errors.New("-model is required: the dialect azure has it in the path"))
	case dialect == spillover.Azure:
		path = "/openai/deployments/" + url.PathEscape(model) + "/chat/completions?api-version=2024-10-21"
	default:
		return nil, usageError(cmd, fmt.Errorf("-dialect: %q is not openai, azure or azure-v1", dialect))
	}
	body, err := explainedBody(cmd, path)
	if err != nil {
		return nil, err
	}
	if class := cmd.String("class"); class != "" {
		var c spillover.Class
		if err := c.UnmarshalText([]byte(class)); err != nil {
			return nil, usageError(cmd, fmt.Errorf("-class: %q is neither interactive nor background", class))
		}
		ctx = spillover.WithClass(ctx, c)
	}
	if tags := cmd.StringSlice("tag"); len(tags) > 0 {
		ctx = spillover.WithTags(ctx, tags...)
	}
	if session := cmd.String("session"); session != "" {
		ctx = spillover.WithSession(ctx, session)
	}
	method := strings.ToUpper(cmd.String("method"))
	if method == http.MethodGet || method == http.MethodDelete {
		body = nil
	}
	in, err := http.NewRequestWithContext(ctx, method, "https://spillover.invalid"+path, bytes.NewReader(body))
	if err != nil {
		return nil, usageError(cmd, err)
	}
	if len(body) > 0 {
		in.Header.Set("Content-Type", "application/json")
	}
	return in, nil
}

// explainedBody is the body of the request: that of a file, or a short prompt.
func explainedBody(cmd *urfave.Command, path string) ([]byte, error) {
	model := cmd.String("model")
	switch file := cmd.String("in"); {
	case file == "":
		return shortPrompt(model, path)
	case model != "" && !strings.Contains(path, "/deployments/"):
		return nil, usageError(cmd, errors.New("-model and -in cannot be combined: the body of the request names the model"))
	case file == "-":
		body, err := io.ReadAll(cmd.Root().Reader)
		if err != nil {
			return nil, wrong(fmt.Errorf("reading standard input: %w", err))
		}
		return body, nil
	default:
		body, err := os.ReadFile(file)
		if err != nil {
			return nil, wrong(err)
		}
		return body, nil
	}
}

// shortPrompt is a request that suits the operation of a path.
func shortPrompt(model, path string) ([]byte, error) {
	path, _, _ = strings.Cut(path, "?")
	body := map[string]any{"model": model}
	switch {
	case strings.HasSuffix(path, "/chat/completions"):
		body["messages"] = []any{map[string]string{"role": "user", "content": "Hello"}}
	case strings.HasSuffix(path, "/completions"):
		body["prompt"] = "Hello"
	default:
		body["input"] = "Hello"
	}
	return json.Marshal(body)
}

func printTrail(to io.Writer, trail spillover.Trail) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { fmt.Fprintf(w, "%s\t%v\n", name, value) }
	row("model", cmp.Or(trail.Model, "(none)"))
	if len(trail.Tags) > 0 {
		row("tags", strings.Join(trail.Tags, ", "))
	}
	row("class", trail.Class)
	if trail.Session {
		row("session", "yes: requests of this session go to the same deployment")
	}
	row("estimate", count(int(trail.Tokens), "token"))
	for _, step := range trail.Steps {
		if len(step.Candidates) == 0 {
			continue
		}
		fmt.Fprintln(w, "\nTIER\tBACKEND\tDEPLOYMENT\tRESULT")
		candidates := slices.Clone(step.Candidates)
		slices.SortStableFunc(candidates, func(a, b spillover.TrailCandidate) int { return cmp.Compare(a.Priority, b.Priority) })
		chosen := 0
		for _, c := range candidates {
			if c.Chosen {
				chosen = c.Priority
			}
		}
		for _, c := range candidates {
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", c.Priority, c.Backend, cmp.Or(c.Deployment, "-"), verdict(c, chosen))
		}
		if step.More > 0 {
			fmt.Fprintf(w, "\tand %d more\n", step.More)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	why := ""
	if n := len(trail.Steps); n > 0 && trail.Steps[n-1].Why != "" {
		why = " (" + trail.Steps[n-1].Why + ")"
	}
	var err error
	switch {
	case trail.Backend != "":
		_, err = fmt.Fprintf(to, "\nThe request goes to %s%s.\n", trail.Backend, why)
	case trail.Status != 0:
		_, err = fmt.Fprintf(to, "\nNo deployment takes the request%s. The response is %d: %s\n", why, trail.Status, trail.Error)
	default:
		_, err = fmt.Fprintf(to, "\nThe request waits for a deployment%s.\n", why)
	}
	return err
}

// verdict is what became of a candidate; chosen is the tier of the chosen one, or 0.
func verdict(c spillover.TrailCandidate, chosen int) string {
	switch {
	case c.Chosen && c.Skipped != "":
		return "chosen as the last resort: " + c.Skipped
	case c.Chosen:
		return "chosen"
	case c.Skipped != "":
		return "skipped: " + c.Skipped
	case chosen != 0 && c.Priority > chosen:
		return "a lower tier"
	default:
		return "available"
	}
}
