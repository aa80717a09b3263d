package wire

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/spillover-go/spillover/internal/doctest"

	"github.com/stretchr/testify/require"
)

// docs/operations.md has the table of operations.
func TestOperationsInDocs(t *testing.T) {
	var page strings.Builder
	places := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + strings.Join(strings.Fields(s), "`, `") + "`"
	}
	yes := func(b bool, text string) string {
		if b {
			return text
		}
		return ""
	}
	rows := func(specs []operationRow) {
		page.WriteString("| operation | stateless | model | ids in the body | classic Azure names the deployment in the path | stream judged |\n|---|---|---|---|---|---|\n")
		for _, s := range specs {
			model := places(s.model)
			switch {
			case s.HasTrait(UsesBaseModel):
				model = "a base model: not renamed"
			case s.HasTrait(ModelInQuery) && s.model == "":
				model = "`?model=`"
			case s.HasTrait(ModelInQuery):
				model += ", `?model=`"
			}
			fmt.Fprintf(&page, "| %s `/%s` | %s | %s | %s | %s | %s |\n", strings.ReplaceAll(s.methods, " ", ", "), s.path,
				yes(s.HasTrait(Stateless), "yes"), model, places(s.ids), yes(s.HasTrait(DeploymentInPath), "yes")+yes(s.HasTrait(ModelOnlyInPath), ", and then none in the body"), yes(s.HasTrait(Stateless), "yes"))
		}
	}
	page.WriteString("\n")
	rows(operations)
	fmt.Fprintf(&page, "\n## Microsoft Foundry\n\nThese are sent unchanged, to backends under `services.ai.azure.com` or at the caller's own host.\n\n")
	rows(foundryOperations)
	fmt.Fprintf(&page, "\n## Every other operation\n\nIt is assumed to create state. Its model is %s or `?model=` of a POST. Its ids are the segments of its path below the collection, and in the body %s.\n",
		places(unknownOperation.model), places(unknownOperation.ids))
	fmt.Fprintf(&page, "\n## IDs elsewhere\n\n- In the query of a GET: %s.\n- In answers and in the events of streams: %s.\n- In the headers of answers: %s.\n\n",
		places(strings.Join(queryPlaces, " ")), places(responsePlaces), places(strings.Join(append(slices.Clone(headerPlaces.Paths), headerPlaces.IDs...), " ")))
	doctest.Section(t, "../../docs/operations.md", "operations", page.String())
}

// Each row is found by its own path, whatever the ids in it are.
func TestOperationsAreFound(t *testing.T) {
	for _, table := range []struct {
		specs []operationRow
		tree  *pathNode
	}{{operations, operationTree}, {foundryOperations, foundryTree}} {
		seen := map[string]bool{}
		for _, s := range table.specs {
			path := s.path
			for segment := range strings.SplitSeq(path, "/") {
				if segment[0] == '{' {
					path = strings.Replace(path, segment, "x_1", 1)
				}
			}
			for method := range strings.FieldsSeq(s.methods) {
				require.False(t, seen[method+" "+s.path], "%s %s is there twice", method, s.path)
				seen[method+" "+s.path] = true
				require.Equal(t, s, table.tree.find(path).spec(method).operationRow)
			}
		}
	}
	require.Equal(t, UnknownSpec, operationTree.find("files").spec(http.MethodPatch))
	require.Equal(t, UnknownSpec, operationTree.find("telepathy").spec(http.MethodPost))
	require.Equal(t, operationTree.find("files").spec(http.MethodGet), operationTree.find("files").spec(http.MethodHead))
}

func FuzzOperation(f *testing.F) {
	for _, s := range slices.Concat(operations, foundryOperations) {
		for _, prefix := range []string{"/v1/", "/openai/v1/", "/openai/", "/openai/deployments/m/", "/", "//x/v1/v1/"} {
			f.Add(strings.Fields(s.methods)[0], prefix+s.path)
		}
	}
	f.Add("GET", "/v1/files/%zz/%2e%2e//../"+strings.Repeat("a", 1000))
	f.Fuzz(func(t *testing.T, method, path string) {
		r := ParsePath(path)
		require.NotNil(t, r.Spec(method))
		for _, id := range r.PathIDs(method) {
			require.True(t, IsID(id.ID))
		}
		if r.HasDotSegments {
			require.Empty(t, r.Operation)
		}
		if r.Dialect == "" {
			return
		}
		// Written in another dialect it is parsed to the same.
		again := ParsePath("/v1/" + r.Operation)
		if IsCollection(strings.Split(r.Operation, "/")[0]) {
			require.Equal(t, r.Operation, again.Operation, path)
			require.Equal(t, r.node, again.node)
		}
	})
}

func TestOperationIndexes(t *testing.T) {
	seen := map[int]bool{}
	for path := range StatelessPaths {
		i := OperationIndex(path)
		require.Equal(t, path, OperationName(i))
		require.False(t, seen[i])
		require.Less(t, i, MaxOperations)
		seen[i] = true
	}
	require.Equal(t, "files", OperationName(OperationIndex("files/file-1/content")))
	require.Zero(t, OperationIndex("unheard/of"))
	require.Empty(t, OperationName(0))
}
