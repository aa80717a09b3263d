package wire

import "strings"

// A fieldNode is a place in a JSON text, or in a form, that is searched for values.
type fieldNode struct {
	children        map[string]*fieldNode
	modelPrecedence int  // 1 for the place that decides, 2 for the next one, and so on; 0 if this is not a model
	isID            bool // the value, or each element of an array, is an id
	isItem          bool // the id is one of an item
	hasItems        bool // the elements are items, which may be references
	isFlag          bool // the value is a boolean that is searched for
}

// newFieldTree compiles the places of models and of ids, each separated by spaces.
func newFieldTree(models, ids string) *fieldNode {
	root := &fieldNode{}
	place := func(path string) *fieldNode {
		n := root
		for key := range strings.SplitSeq(path, ".") {
			if n.children == nil {
				n.children = map[string]*fieldNode{}
			}
			if n.children[key] == nil {
				n.children[key] = &fieldNode{}
			}
			n = n.children[key]
		}
		return n
	}
	for i, path := range strings.Fields(models) {
		place(path).modelPrecedence = i + 1
	}
	for path := range strings.FieldsSeq(ids) {
		path, item := strings.CutSuffix(path, "*")
		n := place(path)
		n.isID, n.isItem = true, item
		if parent, ok := strings.CutSuffix(path, ".id"); ok && item {
			place(parent).hasItems = true
		}
	}
	return root
}

// IsEmpty reports whether there is no field to search for.
func (n *fieldNode) IsEmpty() bool { return len(n.children) == 0 }

// child returns the node below a quoted key, or nil.
func (n *fieldNode) child(quoted []byte) *fieldNode {
	if n == nil || len(n.children) == 0 {
		return nil
	}
	return n.children[string(keyName(quoted))]
}
