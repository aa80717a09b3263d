package wire

import (
	"net/http"
	"slices"
	"strings"
)

// A pathNode is the part of the table below a sequence of path segments.
type pathNode struct {
	literal map[string]*pathNode
	id      *pathNode // below any segment that is not in literal
	name    string    // of the segment in braces that leads here
	specs   []*Spec
}

// A Spec is a compiled row of the table of operations.
type Spec struct {
	operationRow
	Models *fieldNode // places of models only
	Body   *fieldNode // places of models and ids
	Form   *fieldNode // the same for a multipart form
}

// The compiled table of operations.
var (
	operationTree = compileOperations(operations)
	foundryTree   = compileOperations(foundryOperations)
	// UnknownSpec stands for every operation that is not in the table.
	UnknownSpec = compile(unknownOperation)

	responseTree     = newFieldTree("", responsePlaces)
	itemResponseTree = newFieldTree("", strings.Replace(responsePlaces, "id data.id", "id* data.id*", 1))

	// StatelessPaths are the paths of all stateless operations.
	StatelessPaths = pathsWithTrait(Stateless)
	// DeploymentPaths are the operations of which classic Azure paths name the deployment.
	DeploymentPaths = pathsWithTrait(DeploymentInPath)
)

// compile compiles a row.
func compile(s operationRow) *Spec {
	model := s.model
	if model == "" && !s.HasTrait(UsesBaseModel) {
		model = "model" // a field with this name in a JSON body is a model, even if the row does not list it
	}
	return &Spec{s, newFieldTree(model, ""), newFieldTree(model, s.ids), newFieldTree(s.model, s.ids)}
}

// compileOperations compiles a table.
func compileOperations(specs []operationRow) *pathNode {
	root := &pathNode{}
	for _, s := range specs {
		n := root
		for segment := range strings.SplitSeq(s.path, "/") {
			if segment[0] == '{' {
				if n.id == nil {
					n.id = &pathNode{name: strings.Trim(segment, "{}")}
				}
				n = n.id
				continue
			}
			if n.literal == nil {
				n.literal = map[string]*pathNode{}
			}
			if n.literal[segment] == nil {
				n.literal[segment] = &pathNode{}
			}
			n = n.literal[segment]
		}
		n.specs = append(n.specs, compile(s))
	}
	return root
}

// pathsWithTrait returns the paths of all operations with a trait.
func pathsWithTrait(t Trait) map[string]bool {
	paths := map[string]bool{}
	for _, s := range slices.Concat(operations, foundryOperations) {
		if s.HasTrait(t) {
			paths[s.path] = true
		}
	}
	return paths
}

// HasTrait reports whether the operation has a trait.
func (s operationRow) HasTrait(t Trait) bool { return s.traits&t != 0 }

// ModelPlaces are the places of the body at which the service reads the model, without
// those at which the operation only tolerates one.
func (s *Spec) ModelPlaces() []string {
	if s.HasTrait(UsesBaseModel) && s.model == "" {
		return []string{"model"}
	}
	return strings.Fields(s.model)
}

// IsCollection reports whether an operation in the table begins with this segment.
func IsCollection(segment string) bool { return operationTree.literal[segment] != nil }

// below returns the node below a segment, or nil if the table has no such path.
func (n *pathNode) below(segment string) *pathNode {
	if n == nil {
		return nil
	}
	if l := n.literal[segment]; l != nil {
		return l
	}
	return n.id
}

// find returns the node of an operation's path, or nil if the table has no such path.
func (n *pathNode) find(op string) *pathNode {
	for segment, rest := CutSegment(op); segment != "" && n != nil; segment, rest = CutSegment(rest) {
		n = n.below(segment)
	}
	return n
}

// spec returns the row for a method, or UnknownSpec if there is none.
func (n *pathNode) spec(method string) *Spec {
	if n != nil {
		if method == "" || method == http.MethodHead {
			method = http.MethodGet
		}
		for _, s := range n.specs {
			if containsWord(s.methods, method) {
				return s
			}
		}
	}
	return UnknownSpec
}

// containsWord reports whether a list of words, separated by spaces, contains a word.
func containsWord(words, word string) bool {
	for w := range strings.SplitSeq(words, " ") {
		if w == word {
			return true
		}
	}
	return false
}

// MaxOperations bounds the number of operations that are distinguished. All operations
// without an index of their own share index 0.
const MaxOperations = 64

// operationNumbers are the indexes of the stateless operations and of all other
// collections, in the order of their names.
var operationNumbers = func() map[string]int {
	var names []string
	for op := range StatelessPaths {
		names = append(names, op)
	}
	for root := range operationTree.literal {
		if !StatelessPaths[root] {
			names = append(names, root)
		}
	}
	slices.Sort(names)
	numbers := map[string]int{}
	for i, name := range names[:min(len(names), MaxOperations-1)] {
		numbers[name] = i + 1
	}
	return numbers
}()

// OperationIndex returns the index of an operation, or of its collection. It is 0 for
// an unknown operation.
func OperationIndex(op string) int {
	if n := operationNumbers[op]; n > 0 {
		return n
	}
	root, _ := CutSegment(op)
	return operationNumbers[root]
}

// OperationName returns the operation, or the collection, with an index. It is the
// inverse of OperationIndex.
func OperationName(index int) string {
	for name, i := range operationNumbers {
		if i == index {
			return name
		}
	}
	return ""
}

// isOperation reports whether the table has an operation with exactly this path.
func (n *pathNode) isOperation() bool { return n != nil && len(n.specs) > 0 }
