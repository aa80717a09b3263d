package cli

import (
	"context"
	"errors"
	"fmt"

	urfave "github.com/urfave/cli/v3"

	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
)

func keyCommand() *urfave.Command {
	return &urfave.Command{
		Name:        "key",
		Usage:       "print a new key for callers of serve, and its entry in the file of keys",
		ArgsUsage:   "NAME",
		Description: "The key itself is not stored anywhere: give it to the caller. Append the entry to the file of -keys.",
		Action: func(_ context.Context, cmd *urfave.Command) error {
			if cmd.Args().Len() != 1 {
				return usageError(cmd, errors.New("give the new key a name, by which log records identify it"))
			}
			key, sum := keys.New()
			name := cmd.Args().First()
			entry := fmt.Sprintf("  - name: %s\n    sha256: %s\n", name, sum)
			if _, err := keys.Parse([]byte("keys:\n" + entry)); err != nil {
				return wrong(fmt.Errorf("the name cannot be used: %w", err))
			}
			fmt.Fprintf(cmd.Root().Writer, "key: %s\n\nkeys:\n%s", key, entry)
			return nil
		},
	}
}
