package cli

import (
	"errors"
	"fmt"
	"io/fs"
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
	cfg, err := loadConfigFile(cmd.String("config"))
	if err != nil {
		return cfg, wrong(err)
	}
	return cfg, nil
}

// loadConfigFile is [spillover.Load], with a hint for somebody who has no file yet.
func loadConfigFile(path string) (spillover.Config, error) {
	cfg, err := spillover.Load(path)
	if path == defaultConfig && errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf(`%w: choose another file with -config, or try "spillover simulate", which needs none`, err)
	}
	return cfg, err
}

func logFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "log", Value: "text", Usage: "the format of log records on standard error: text, json or none"}
}

func logLevelFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "log-level", Value: "info", Usage: "the lowest level of log records: debug, info, warn or error"}
}

// newLogger makes the logger of logFlag, and of logLevelFlag if the command has that. Its error is
// about the flags.
func newLogger(cmd *urfave.Command) (*slog.Logger, error) {
	to := cmd.Root().ErrWriter
	var level slog.Level // info
	if name := cmd.String("log-level"); name != "" {
		if err := level.UnmarshalText([]byte(name)); err != nil {
			return nil, fmt.Errorf("-log-level: %q is not debug, info, warn or error", name)
		}
	}
	options := &slog.HandlerOptions{Level: level}
	switch format := cmd.String("log"); format {
	case "text":
		return slog.New(slog.NewTextHandler(to, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(to, options)), nil
	case "none":
		return slog.New(slog.DiscardHandler), nil
	default:
		return nil, fmt.Errorf("-log: %q is not text, json or none", format)
	}
}
