package cli

import (
	"context"
	"errors"
	"fmt"

	urfave "github.com/urfave/cli/v3"
	"go.yaml.in/yaml/v3"

	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
)

func keyCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "key",
		Usage:     "print a new key for callers of serve, and its entry in the file of keys",
		ArgsUsage: "NAME",
		Description: "Give the key to the caller: it is not stored anywhere. Add the lines below \"keys:\" to the file of serve -keys.\n\n" +
			"Exit codes: 0 the key was printed; 1 it could not be written; 2 the name is missing or cannot be used.",
		Action: func(_ context.Context, cmd *urfave.Command) error {
			if cmd.Args().Len() != 1 {
				return usageError(cmd, errors.New("the key needs a name, which log records show: spillover key NAME"))
			}
			key, sum := keys.New()
			name, err := yaml.Marshal(cmd.Args().First()) // in quotes where YAML needs them
			if err != nil {
				return wrong(err)
			}
			entry := fmt.Sprintf("  - name: %s    sha256: %s\n", name, sum)
			if _, err := keys.Parse([]byte("keys:\n" + entry)); err != nil {
				return wrong(fmt.Errorf("the name cannot be used: %w", err))
			}
			_, err = fmt.Fprintf(cmd.Root().Writer, "key: %s\n\nkeys:\n%s", key, entry)
			return err
		},
	}
}
