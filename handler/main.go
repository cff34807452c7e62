// Command handler is signup-sync: alone it serves the Azure Functions host as a custom handler; with a command it is
// the operator's tool. This package reads the configuration and wires the parts together; what the job is stands in
// pipeline.Engine.Run.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes, as `handler --help` says them.
const (
	exitOK       = 0
	exitFailed   = 1 // the command could not do its work, or found that something is wrong
	exitRefused  = 2 // the command line, the environment or signup-sync.yaml is wrong: nothing was begun
	helpOfExits  = "Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong."
	descriptions = "Brings everyone who signs up in a Microsoft Entra External ID tenant to the systems that should know them. Without a command it serves the Azure Functions host. " + helpOfExits
)

// commands is the command line.
type commands struct {
	Settings string `placeholder:"FILE" type:"path" help:"Take the app settings from FILE in place of the environment: what 'az functionapp config appsettings list' prints, or a local.settings.json. Key Vault references in it are read with your own Azure CLI login."`

	Serve    serveCommand    `cmd:"" default:"1" help:"Serve the Azure Functions host (the host starts it so, without arguments)."`
	Local    localCommand    `cmd:"" help:"Show the whole job on this machine: a simulated tenant, simulated destinations, and this program under a small Functions host."`
	Sim      simCommand      `cmd:"" help:"Serve the simulated tenant and destinations, for 'func start'."`
	Check    checkCommand    `cmd:"" help:"Check the environment and signup-sync.yaml, ask nobody, and change nothing."`
	Doctor   doctorCommand   `cmd:"" help:"Ask everyone concerned whether all is well, and say what to do where it is not; nothing is changed anywhere."`
	Census   censusCommand   `cmd:"" help:"Compare everyone in the tenant with the ledger, and show the certificate."`
	Backfill backfillCommand `cmd:"" help:"Bring those as well who signed up before the installation, or before a destination was added."`
	Explain  explainCommand  `cmd:"" help:"Say all that the ledger knows of one user, in words, and what the user waits for."`
	Replay   replayCommand   `cmd:"" help:"Reopen what has failed, or was skipped, so that the next run works it once more."`
	Forget   forgetCommand   `cmd:"" help:"Leave users alone from now on, and keep nothing of them but the object id."`
	Policy   policyCommand   `cmd:"" help:"Show who can sign up alone by the tenant's policies, or change that, with your own login."`
	Invite   inviteCommand   `cmd:"" help:"Invite people as guests, one or a file of them, with your own login."`
	Undo     undoCommand     `cmd:"" help:"Take back what the profile section has written to the users' own records, as far as it still stands there."`
	Package  packageCommand  `cmd:"" hidden:"" help:"Make the zip that is deployed."`
	Licences licencesCommand `cmd:"" hidden:"" help:"Write the licences of all that is in the program."`
	Docs     docsCommand     `cmd:"" hidden:"" help:"Write the pages that are generated from the code."`
}

// system is what a command may use of the outside.
type system struct {
	args           []string
	getenv         func(string) string
	environ        func() []string // NAME=value of the whole environment; nil = not known
	settings       *appSettings    // in place of the environment; nil = none
	unreadable     error           // why their file cannot be read, which the doctor has a line for
	stdout, stderr io.Writer
}

// refusal is an error in what the user gave: exit code 2.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, system{args: os.Args[1:], getenv: os.Getenv, environ: os.Environ, stdout: os.Stdout, stderr: os.Stderr})
	stop()
	os.Exit(code)
}

// run is the program; it returns the exit code.
func run(ctx context.Context, s system) int {
	var c commands
	exited := -1
	parser, err := kong.New(&c, kong.Name("handler"), kong.Description(descriptions), kong.Writers(s.stdout, s.stderr),
		kong.Exit(func(code int) { exited = code }), kong.UsageOnError(), kong.BindTo(ctx, (*context.Context)(nil)))
	if err != nil {
		fmt.Fprintln(s.stderr, "error:", err)
		return exitFailed
	}
	command, err := parser.Parse(s.args)
	if exited >= 0 {
		return exited // --help
	}
	if err == nil {
		if s, err = c.take(ctx, s, command.Selected().Name); err == nil {
			err = command.Run(s)
		}
	} else {
		err = refusal{fmt.Errorf("%w; see 'handler --help'", err)}
	}
	if err == nil {
		return exitOK
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		fmt.Fprintln(s.stderr, "error: interrupted")
	}
	for _, line := range eachError(err) {
		if line != context.Canceled { // which says no more
			fmt.Fprintln(s.stderr, "error:", strings.ReplaceAll(line.Error(), "\n", "; "))
		}
	}
	if _, ok := errors.AsType[refusal](err); ok {
		return exitRefused
	}
	return exitFailed
}

// take reads --settings. A Key Vault reference that cannot be read is an error, as is the file; the doctor has a line for
// either instead.
func (c commands) take(ctx context.Context, s system, command string) (system, error) {
	if c.Settings == "" {
		return s, nil
	}
	if slices.Contains([]string{"serve", "local", "sim", "package", "licences", "docs"}, command) {
		return s, refusal{fmt.Errorf("--settings: 'handler %s' is not about an app that is deployed", command)}
	}
	s, err := withSettings(s, c.Settings)
	if command == "doctor" {
		s.unreadable = err
		return s, nil
	}
	if err != nil {
		return s, err
	}
	s.settings.resolve(ctx, s.getenv)
	if err := s.settings.err(); err != nil {
		return s, refusal{err}
	}
	return s, nil
}

// eachError takes joined errors apart, so that each has a line of its own. What wraps several with words of its own stays
// whole, since its words would be lost.
func eachError(err error) []error {
	var config ConfigErrors
	if many, ok := err.(interface{ Unwrap() []error }); ok && err.Error() == errors.Join(many.Unwrap()...).Error() {
		var all []error
		for _, e := range many.Unwrap() {
			all = append(all, eachError(e)...)
		}
		return all
	}
	if r, ok := err.(refusal); ok {
		return eachError(r.error)
	}
	if errors.As(err, &config) {
		all := make([]error, len(config))
		for i := range config {
			all[i] = config[i]
		}
		return all
	}
	return []error{err}
}
