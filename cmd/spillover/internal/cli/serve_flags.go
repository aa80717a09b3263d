package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	urfave "github.com/urfave/cli/v3"

	"github.com/spillover-go/spillover/cmd/spillover/internal/proxy"
)

// serveOptions are what the flags of serve say. Those without a comment are the flag of
// that name.
type serveOptions struct {
	log                   *slog.Logger
	configPath, keysPath  string
	certPath, certKeyPath string
	address, adminAddress string // of -listen and -admin-listen; adminAddress may be ""
	localOnly             bool   // of simulate, which has no keys
	fleetURL              string // with variables; "" for none
	drainDelay            time.Duration
	shutdownTimeout       time.Duration
	callers               proxy.Options // without what newServer makes
}

func serveFlags() []urfave.Flag {
	return []urfave.Flag{
		configFlag(),
		listenFlag("the `ADDRESS` for callers, host:port or unix:/path; one that is not loopback needs -keys"),
		&urfave.StringFlag{Name: "keys", Usage: "the `FILE` with the keys that callers must present", TakesFile: true},
		&urfave.StringFlag{Name: "tls-cert", Usage: "the `FILE` with the certificate chain, in PEM", TakesFile: true},
		&urfave.StringFlag{Name: "tls-key", Usage: "the `FILE` with the certificate's private key, in PEM", TakesFile: true},
		&urfave.StringFlag{Name: "admin-listen", Usage: "an `ADDRESS` of its own for /metrics and /status; one that is not loopback needs -keys"},
		&urfave.BoolFlag{Name: "pass-credentials", Usage: "send callers' own credentials to backends that have none; not with -keys"},
		&urfave.Int64Flag{Name: "max-body", Value: 64, Usage: "the maximum size of a request body, in `MiB`"},
		&urfave.Int64Flag{Name: "max-body-memory", Value: 1024, Usage: "how much of request bodies is held at a time for all callers together, in `MiB`; 0 for no limit"},
		&urfave.DurationFlag{Name: "client-timeout", Value: time.Minute, Usage: "how long a caller may take to send or to read the next piece"},
		&urfave.Int64Flag{Name: "min-upload-rate", Value: 8, Usage: "how fast a caller must send a body on average, in `KiB` per second"},
		&urfave.DurationFlag{Name: "drain-delay", Usage: "how long requests are still accepted after a signal, while /readyz answers 503"},
		&urfave.DurationFlag{Name: "shutdown-timeout", Value: 5 * time.Minute, Usage: "how long responses in progress may take after that"},
		&urfave.StringFlag{Name: "fleet", Usage: "the `URL` of a Redis that connects replicas, such as rediss://user:${REDIS_PASSWORD}@host:6380; ${NAME} is replaced by an environment variable",
			Sources: urfave.EnvVars("SPILLOVER_FLEET")},
		&urfave.StringFlag{Name: "access-log", Value: "info", Usage: "the level of the log record of each request: debug, info, or none"},
		logFlag(),
		logLevelFlag(),
	}
}

// listenFlag is the address of the proxy, of serve and of simulate.
func listenFlag(usage string) urfave.Flag {
	return &urfave.StringFlag{Name: "listen", Value: "127.0.0.1:8080", Usage: usage}
}

// readServeOptions reads the flags, and reports everything that is wrong with them.
func readServeOptions(cmd *urfave.Command) (o serveOptions, err error) {
	if err := noArguments(cmd); err != nil {
		return o, err
	}
	o = serveOptions{
		configPath: cmd.String("config"), keysPath: cmd.String("keys"),
		certPath: cmd.String("tls-cert"), certKeyPath: cmd.String("tls-key"),
		address: cmd.String("listen"), adminAddress: cmd.String("admin-listen"), fleetURL: cmd.String("fleet"),
		drainDelay: cmd.Duration("drain-delay"), shutdownTimeout: cmd.Duration("shutdown-timeout"),
		callers: proxy.Options{
			MaxBody: cmd.Int64("max-body") << 20, MaxBodyMemory: cmd.Int64("max-body-memory") << 20, ClientTimeout: cmd.Duration("client-timeout"), MinUploadRate: cmd.Int64("min-upload-rate") << 10,
			PassCredentials: cmd.Bool("pass-credentials"),
		},
	}
	o.log, err = newLogger(cmd)
	errs := []error{err}
	switch level := cmd.String("access-log"); level {
	case "info":
		o.callers.AccessLevel = slog.LevelInfo
	case "debug":
		o.callers.AccessLevel = slog.LevelDebug
	case "none":
		o.callers.NoAccessLog = true
	default:
		errs = append(errs, fmt.Errorf("-access-log: %q is not debug, info or none", level))
	}
	if o.callers.MaxBody <= 0 || o.callers.MaxBody>>20 != cmd.Int64("max-body") {
		errs = append(errs, errors.New("-max-body must be at least 1"))
	}
	if memory := o.callers.MaxBodyMemory; memory < 0 || memory>>20 != cmd.Int64("max-body-memory") || memory > 0 && memory/2 < o.callers.MaxBody {
		errs = append(errs, errors.New("-max-body-memory must be 0, or at least twice -max-body: one key may hold half of it"))
	}
	if o.callers.ClientTimeout <= 0 {
		errs = append(errs, errors.New("-client-timeout must be more than 0"))
	}
	if o.callers.MinUploadRate <= 0 || o.callers.MinUploadRate>>10 != cmd.Int64("min-upload-rate") {
		errs = append(errs, errors.New("-min-upload-rate must be at least 1"))
	}
	if o.drainDelay < 0 || o.shutdownTimeout < 0 {
		errs = append(errs, errors.New("-drain-delay and -shutdown-timeout must not be negative"))
	}
	if (o.certPath == "") != (o.certKeyPath == "") {
		errs = append(errs, errors.New("-tls-cert and -tls-key need each other"))
	}
	if o.callers.PassCredentials && o.keysPath != "" {
		errs = append(errs, errors.New("-pass-credentials and -keys exclude each other: a caller's key must not reach a backend"))
	}
	if err := errors.Join(errs...); err != nil {
		return o, usageError(cmd, err)
	}
	return o, nil
}
