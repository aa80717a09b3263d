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

// docs/operations.md is the table of operations, for people.
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
			model := places(s.Model)
			switch {
			case s.Has(BaseModel):
				model = "a base model: not renamed"
			case s.Has(ModelInQuery) && s.Model == "":
				model = "`?model=`"
			case s.Has(ModelInQuery):
				model += ", `?model=`"
			}
			fmt.Fprintf(&page, "| %s `/%s` | %s | %s | %s | %s | %s |\n", strings.ReplaceAll(s.Methods, " ", ", "), s.Path,
				yes(s.Has(Stateless), "yes"), model, places(s.IDs), yes(s.Has(DeploymentInPath), "yes")+yes(s.Has(NoModelBesidePath), ", and then none in the body"), yes(s.Has(Stateless), "yes"))
		}
	}
	page.WriteString("\n")
	rows(Operations)
	fmt.Fprintf(&page, "\n## Microsoft Foundry\n\nThese are sent as they came, to backends under `services.ai.azure.com` or at the caller's own host.\n\n")
	rows(FoundryOperations)
	fmt.Fprintf(&page, "\n## Every other operation\n\nIt is taken for one that creates state. Its model is %s or `?model=` of a POST. IDs are the segments of its path below the collection, and in the body %s.\n",
		places(UnknownOperation.Model), places(UnknownOperation.IDs))
	fmt.Fprintf(&page, "\n## IDs elsewhere\n\n- In the query of a GET: %s.\n- In answers and in the events of streams: %s.\n- In the headers of answers: %s.\n\n",
		places(strings.Join(QueryPlaces, " ")), places(AnswerPlaces), places(strings.Join(append(slices.Clone(HeaderPlaces.Paths), HeaderPlaces.IDs...), " ")))
	doctest.Section(t, "../../docs/operations.md", "operations", page.String())
}

// Each row is found by its own path, whatever its ids are.
func TestOperationsAreFound(t *testing.T) {
	for _, table := range []struct {
		specs []operationRow
		tree  *pathNode
	}{{Operations, OperationTree}, {FoundryOperations, FoundryTree}} {
		seen := map[string]bool{}
		for _, s := range table.specs {
			path := s.Path
			for segment := range strings.SplitSeq(path, "/") {
				if segment[0] == '{' {
					path = strings.Replace(path, segment, "x_1", 1)
				}
			}
			for method := range strings.FieldsSeq(s.Methods) {
				require.False(t, seen[method+" "+s.Path], "%s %s is there twice", method, s.Path)
				seen[method+" "+s.Path] = true
				require.Equal(t, s, table.tree.Find(path).Spec(method).operationRow)
			}
		}
	}
	require.Equal(t, UnknownSpec, OperationTree.Find("files").Spec(http.MethodPatch))
	require.Equal(t, UnknownSpec, OperationTree.Find("telepathy").Spec(http.MethodPost))
	require.Equal(t, OperationTree.Find("files").Spec(http.MethodGet), OperationTree.Find("files").Spec(http.MethodHead))
}

func FuzzOperation(f *testing.F) {
	for _, s := range slices.Concat(Operations, FoundryOperations) {
		for _, prefix := range []string{"/v1/", "/openai/v1/", "/openai/", "/openai/deployments/m/", "/", "//x/v1/v1/"} {
			f.Add(strings.Fields(s.Methods)[0], prefix+s.Path)
		}
	}
	f.Add("GET", "/v1/files/%zz/%2e%2e//../"+strings.Repeat("a", 1000))
	f.Fuzz(func(t *testing.T, method, path string) {
		r := ParsePath(path)
		require.NotNil(t, r.Spec(method))
		for _, id := range r.PathIDs(method) {
			require.True(t, IsID(id.ID))
		}
		if r.Dots {
			require.Empty(t, r.Operation)
		}
		if r.Dialect == "" {
			return
		}
		// It is read again as what it was.
		again := ParsePath("/v1/" + r.Operation)
		if IsCollection(strings.Split(r.Operation, "/")[0]) {
			require.Equal(t, r.Operation, again.Operation, path)
			require.Equal(t, r.node, again.node)
		}
	})
}
