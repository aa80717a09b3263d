package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// timeLimit is much longer than the tests of any rule take. A test that hangs has noticed
// the change.
const timeLimit = 2 * time.Minute

// A binary has the tests of a package, compiled with some changes.
type binary struct {
	path, dir string
	mutants   []*mutant
	switched  bool // none of the changes is in force by itself
	rapid     bool // property tests, which write a file when they fail
}

// binaries compiles the tests for the mutants, in a directory. Those that cannot be
// compiled are passed to fail.
func binaries(ctx context.Context, dir string, mutants []*mutant, fail func(*mutant, error)) iter.Seq[*binary] {
	byPackage := map[string][]*mutant{}
	for _, m := range mutants {
		byPackage[m.Package] = append(byPackage[m.Package], m)
	}
	return func(yield func(*binary) bool) {
		n := 0
		build := func(pkg string, files map[string]string, some ...*mutant) error {
			n++
			path := filepath.Join(dir, fmt.Sprint(n))
			if err := compile(ctx, path, pkg, files); err != nil {
				return err
			}
			b := &binary{filepath.Join(path, "test"), filepath.Join(".", pkg), some, len(files) > 1, importsRapid(pkg)}
			if !yield(b) {
				return context.Canceled
			}
			return nil
		}
		for _, pkg := range slices.Sorted(maps.Keys(byPackage)) {
			files, together, alone, err := variants(byPackage[pkg])
			for len(together) > 0 {
				if err == nil {
					err = build(pkg, files, together...)
				}
				if err == nil {
					break
				}
				rest := slices.DeleteFunc(slices.Clone(together), func(m *mutant) bool { return strings.Contains(err.Error(), m.errorFile()) })
				if len(rest) == len(together) {
					rest = nil // the cause is not one of them
				}
				for _, m := range together {
					if !slices.Contains(rest, m) {
						fail(m, err)
					}
				}
				files, together, _, err = variants(rest)
			}
			for _, m := range alone {
				text, err := m.change(".")
				if err == nil {
					err = build(pkg, map[string]string{m.File: text}, m)
				}
				if err != nil {
					fail(m, err)
				}
			}
		}
	}
}

// importsRapid reports whether the tests of a package use rapid.
func importsRapid(pkg string) bool {
	files, _ := filepath.Glob(filepath.Join(".", pkg, "*_test.go"))
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(text), `"pgregory.net/rapid"`)
	})
}

// variants are the files in which mutants can be compiled together, and the mutants that
// are in them. The others must be compiled alone.
func variants(mutants []*mutant) (files map[string]string, together, alone []*mutant, err error) {
	changed := map[string]*variantFile{}
	for _, m := range mutants {
		text, at, err := m.find(".")
		if err != nil {
			return nil, mutants, nil, err
		}
		v := changed[m.File]
		if v == nil {
			if v, err = newVariantFile(m.File, text); err != nil {
				return nil, mutants, nil, err
			}
			changed[m.File] = v
		}
		if v.add(m, at) {
			together = append(together, m)
		} else {
			alone = append(alone, m)
		}
	}
	files = map[string]string{}
	for name, v := range changed {
		if len(v.dispatch) > 0 {
			files[name] = v.String()
			files[filepath.Join(filepath.Dir(name), "mutant_number.go")] = numberFile(v.parsed.Name.Name)
		}
	}
	return files, together, alone, nil
}

// compile compiles the tests of a package, with other contents of some files, as test in
// a new directory.
func compile(ctx context.Context, dir, pkg string, files map[string]string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	replace := map[string]string{}
	for name, text := range files {
		path, err := filepath.Abs(name)
		if err != nil {
			return err
		}
		replace[path] = filepath.Join(dir, strings.ReplaceAll(name, string(filepath.Separator), "+"))
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			return err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-gcflags=-e", "-overlay", overlayFile, "-o", filepath.Join(dir, "test"), ".") //nolint:gosec // its arguments are packages of this module
	build.Dir = filepath.Join(".", pkg)
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("it does not compile: %w\n%s", err, output)
	}
	return nil
}

var failedTest = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

// tryUnchanged runs the tests of all mutants without a change, and returns what has failed.
func (b *binary) tryUnchanged(ctx context.Context) (failed string, err error) {
	if !b.switched {
		return "", nil
	}
	var all []string
	for _, m := range b.mutants {
		all = append(all, m.Test)
	}
	slices.Sort(all)
	return b.try(ctx, new(mutant), strings.Join(slices.Compact(all), "|"))
}

// try runs the tests that match a pattern with the change of a mutant. It returns what has
// failed, and "" if nothing has.
func (b *binary) try(ctx context.Context, m *mutant, tests string) (failed string, err error) {
	args := []string{"-test.run", tests, "-test.failfast", "-test.timeout", timeLimit.String()}
	if b.rapid {
		args = append(args, "-rapid.nofailfile")
	}
	test := exec.CommandContext(ctx, b.path, args...) //nolint:gosec // it has just been built
	test.Dir, test.Env = b.dir, append(os.Environ(), fmt.Sprintf("%s=%d", numberEnv, m.number))
	output, err := test.CombinedOutput()
	text := string(output)
	var exit *exec.ExitError
	switch {
	case err == nil && strings.Contains(text, "no tests to run"):
		return "", errors.New("no test has such a name")
	case err == nil:
		return "", nil
	case !errors.As(err, &exit):
		return "", err
	case exit.ExitCode() < 0: // by a signal, for example for lack of memory
		return "", fmt.Errorf("the tests were killed: %w", err)
	}
	if name := failedTest.FindStringSubmatch(text); name != nil {
		return name[1], nil
	}
	if strings.Contains(text, "panic: test timed out") {
		return "the tests hang", nil
	}
	return "the tests crash", nil
}
