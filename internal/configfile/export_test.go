package configfile

import (
	"io/fs"

	"go.yaml.in/yaml/v3"
)

// What tests need of the internals.

const MaxValues = maxValues

func Parse(name string, text []byte) (*yaml.Node, *Problem) { return parse(name, text) }

func ReadWith(path string, open func(string) (fs.File, error)) ([]byte, error) {
	return read(path, MaxSize, open)
}

func Distance(a, b string) int { return distance(a, b) }

func (w *Watcher) Poll() { w.poll() }
