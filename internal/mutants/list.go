package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

const listFile = "internal/mutants/mutants.yaml"

// A mutant is a change of the code that breaks a rule.
type mutant struct {
	Rule    string `yaml:"rule"`    // that is broken
	File    string `yaml:"file"`    // that is changed
	Old     string `yaml:"old"`     // text that the file has once
	New     string `yaml:"new"`     // text that replaces it
	Test    string `yaml:"test"`    // a pattern for go test -run: tests of which one has to fail
	Package string `yaml:"package"` // that has the tests; empty: the root package

	number int // from 1, in the list
}

// read reads the list in the repository at root.
func read(root string) (list []*mutant, err error) {
	f, err := os.Open(filepath.Join(root, listFile))
	if err != nil {
		return nil, fmt.Errorf("not at the top of the repository: %w", err)
	}
	defer f.Close()
	decoder := yaml.NewDecoder(f)
	decoder.KnownFields(true)
	if err := decoder.Decode(&list); err != nil {
		return nil, fmt.Errorf("%s: %w", listFile, err)
	}
	for i, m := range list {
		m.number = i + 1
	}
	return list, nil
}

// find returns the text of the file, and where in it the change begins.
func (m *mutant) find(root string) (text string, at int, err error) {
	content, err := os.ReadFile(filepath.Join(root, m.File))
	if err != nil {
		return "", 0, err
	}
	text = string(content)
	if n := strings.Count(text, m.Old); m.Old == "" || n != 1 {
		return "", 0, fmt.Errorf("%s has the text %d times, not once: %q", m.File, n, m.Old)
	}
	return text, strings.Index(text, m.Old), nil
}

// change returns the file with the change.
func (m *mutant) change(root string) (string, error) {
	text, at, err := m.find(root)
	if err != nil {
		return "", err
	}
	return text[:at] + m.New + text[at+len(m.Old):], nil
}
