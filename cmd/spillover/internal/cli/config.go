package cli

import (
	"fmt"
	"log/slog"

	urfave "github.com/urfave/cli/v3"

	"github.com/spillover-go/spillover"
	_ "github.com/spillover-go/spillover/entra" // auth: entra
)

const defaultConfig = "spillover.yaml"

func configFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "config", Value: defaultConfig, Usage: "the configuration `FILE`, in YAML or JSON", TakesFile: true}
}

// loadConfig reads the file of configFlag. All its errors are reported at once.
func loadConfig(cmd *urfave.Command) (spillover.Config, error) {
	cfg, err := spillover.Load(cmd.String("config"))
	if err != nil {
		return cfg, wrong(err)
	}
	return cfg, nil
}

func logFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "log", Value: "text", Usage: "the format of log records on standard error: text, json or none"}
}

// newLogger makes the logger of logFlag.
func newLogger(cmd *urfave.Command) (*slog.Logger, error) {
	to := cmd.Root().ErrWriter
	switch format := cmd.String("log"); format {
	case "text":
		return slog.New(slog.NewTextHandler(to, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(to, nil)), nil
	case "none":
		return slog.New(slog.DiscardHandler), nil
	default:
		return nil, usageError(cmd, fmt.Errorf("log: %q is not text, json or none", format))
	}
}
