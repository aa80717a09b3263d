package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	urfave "github.com/urfave/cli/v3"

	"github.com/spillover-go/spillover/cmd/spillover/internal/litellm"
)

func convertCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "convert",
		Usage:     "turn a configuration of LiteLLM's proxy into one of spillover",
		ArgsUsage: "LITELLM.YAML",
		Description: "Prints the configuration to standard output. What could not be converted, what may work differently and " +
			"which variables must be set is listed on standard error, with the line in the input. - reads standard input.\n\n" +
			"A key in the input is neither copied nor printed: the result has a variable for it.\n\n" +
			"Exit codes: 0 everything was converted; 1 something was left out; 2 the input cannot be read, or nothing of it can be converted.",
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "out", Usage: "write the configuration to a new `FILE`", TakesFile: true},
		},
		Action: convert,
	}
}

// maxConverted is the largest file that is converted, in bytes: that of spillover.Load.
const maxConverted = 1 << 20

func convert(_ context.Context, cmd *urfave.Command) error {
	if cmd.NArg() != 1 {
		return usageError(cmd, errors.New("name one file to convert, or - for standard input"))
	}
	root, file := cmd.Root(), cmd.Args().First()
	var text []byte
	var err error
	if file == "-" {
		file = "standard input"
		text, err = readLimited(root.Reader)
	} else {
		text, err = readFileLimited(file)
	}
	if err != nil {
		return wrong(fmt.Errorf("%s: %w", file, err))
	}
	result, err := litellm.Convert(file, text, readFileLimited)
	for _, n := range result.Notes {
		fmt.Fprintln(root.ErrWriter, n)
	}
	if err != nil {
		return wrong(err)
	}
	if out := cmd.String("out"); out != "" {
		if err := writeNew(out, result.YAML); err != nil {
			return wrong(err)
		}
	} else if _, err := root.Writer.Write(result.YAML); err != nil {
		return err
	}
	if !result.Complete() {
		return failed()
	}
	return nil
}

func readFileLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err) // the caller has the path
	}
	defer f.Close()
	return readLimited(f)
}

func readLimited(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxConverted+1))
	if len(text) > maxConverted {
		return nil, fmt.Errorf("is larger than %d MiB", maxConverted>>20)
	}
	return text, err
}

// writeNew writes a file that must not exist.
func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("-out: %s exists, and is not replaced", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path) // it is not whole, and would not be replaced
	}
	return err
}
