package spillover

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

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
	rows := func(specs []operationSpec) {
		page.WriteString("| operation | stateless | model | ids in the body | classic Azure names the deployment in the path | stream judged |\n|---|---|---|---|---|---|\n")
		for _, s := range specs {
			model := places(s.model)
			switch {
			case s.has(baseModel):
				model = "a base model: not renamed"
			case s.has(modelInQuery) && s.model == "":
				model = "`?model=`"
			case s.has(modelInQuery):
				model += ", `?model=`"
			}
			fmt.Fprintf(&page, "| %s `/%s` | %s | %s | %s | %s | %s |\n", strings.ReplaceAll(s.methods, " ", ", "), s.path,
				yes(s.has(stateless), "yes"), model, places(s.ids), yes(s.has(deploymentInPath), "yes")+yes(s.has(noModelBesidePath), ", and then none in the body"), yes(s.has(stateless), "yes"))
		}
	}
	page.WriteString("\n")
	rows(operations)
	fmt.Fprintf(&page, "\n## Microsoft Foundry\n\nThese are sent as they came, to backends under `services.ai.azure.com` or at the caller's own host.\n\n")
	rows(foundryOperations)
	fmt.Fprintf(&page, "\n## Every other operation\n\nIt is taken for one that creates state. Its model is %s or `?model=` of a POST. Ids are the segments of its path below the collection, and in the body %s.\n",
		places(unknownOperation.model), places(unknownOperation.ids))
	fmt.Fprintf(&page, "\n## Ids elsewhere\n\n- In the query of a GET: %s.\n- In answers and in the events of streams: %s.\n- In the headers of answers: %s.\n\n",
		places(strings.Join(queryPlaces, " ")), places(answerPlaces), places(strings.Join(append(slices.Clone(headerPlaces.paths), headerPlaces.ids...), " ")))
	upToDate(t, "docs/operations.md", "operations", page.String())
}

// Each row is found by its own path, whatever its ids are.
func TestOperationsAreFound(t *testing.T) {
	for _, table := range []struct {
		specs []operationSpec
		tree  *pathNode
	}{{operations, operationTree}, {foundryOperations, foundryTree}} {
		seen := map[string]bool{}
		for _, s := range table.specs {
			path := s.path
			for _, segment := range strings.Split(path, "/") {
				if segment[0] == '{' {
					path = strings.Replace(path, segment, "x_1", 1)
				}
			}
			for _, method := range strings.Fields(s.methods) {
				require.False(t, seen[method+" "+s.path], "%s %s is there twice", method, s.path)
				seen[method+" "+s.path] = true
				require.Equal(t, s, table.tree.find(path).spec(method).operationSpec)
			}
		}
	}
	require.Equal(t, unknownSpec, operationTree.find("files").spec(http.MethodPatch))
	require.Equal(t, unknownSpec, operationTree.find("telepathy").spec(http.MethodPost))
	require.Equal(t, operationTree.find("files").spec(http.MethodGet), operationTree.find("files").spec(http.MethodHead))
}

// Of several prefixes in a path the one that is nearest to the operation counts.
func TestPrefixNearestToTheOperation(t *testing.T) {
	for in, want := range map[string]string{
		"/openai/v1/v1/chat/completions":                            "/v1/chat/completions",
		"/v1/v1/responses":                                          "/v1/responses",
		"/openai/openai/v1/responses":                               "/v1/responses",
		"/openai/chat/completions":                                  "/v1/chat/completions",
		"/openai/team/v1/chat/completions":                          "/v1/chat/completions",
		"/v1/tenant/openai/deployments/m/chat/completions":          "/v1/chat/completions",
		"/v1/tenant/openai/v1/embeddings":                           "/v1/embeddings",
		"/openai/v1/openai/deployments/m/embeddings":                "/v1/embeddings",
		"/api/v1/projects/openai/v1/files/file-1":                   "/v1/files/file-1",
		"/v1/files/v1":                                              "/v1/files/v1",
		"/v1/files/openai/content":                                  "/v1/files/openai/content",
		"/v1/models/openai":                                         "/v1/models/openai",
		"/openai/deployments/v1/chat/completions":                   "/v1/chat/completions",
		"/openai/deployments/openai/chat/completions":               "/v1/chat/completions",
		"/v1/decisions":                                             "/v1/decisions",
		"/decisions":                                                "/v1/decisions",
		"/live/sessions":                                            "/v1/live/sessions",
		"/agents/agent_1":                                           "/v1/agents/agent_1",
		"/vaults/vault_1/credentials":                               "/v1/vaults/vault_1/credentials",
		"/openai/v1/telepathy/t_1":                                  "/v1/telepathy/t_1",
		"/team/v1/telepathy/t_1":                                    "/v1/telepathy/t_1",
		"/openai/team/v1/telepathy/t_1":                             "/v1/telepathy/t_1",
		"/telepathy/t_1":                                            "/telepathy/t_1",
		"/v1/organization/usage/completions":                        "/v1/organization/usage/completions",
		"/openai/v1/responses/resp_1/an_action_of_tomorrow":         "/v1/responses/resp_1/an_action_of_tomorrow",
		"/api/projects/v1/openai/v1/responses":                      "/v1/responses",
		"/openai/v1/fine_tuning/checkpoints/ft:a:b::c/permissions/": "/v1/fine_tuning/checkpoints/ft:a:b::c/permissions",
	} {
		got := arrives(t, to("https://h", OpenAI, ""), http.MethodPost, "https://foo.example"+in, `{"model":"m"}`)
		require.Equal(t, want, got.path, in)
	}
}

// A path that a server may resolve to another one reaches no backend that
// serves certain models alone.
func TestDotSegmentsAreRefused(t *testing.T) {
	for _, path := range []string{
		"/openai/deployments/m/../secret/chat/completions", "/openai/deployments/m/%2e%2e/secret/chat/completions", "/openai/deployments/m/%2E./secret/chat/completions",
		"/openai/deployments/m/./chat/completions", "/openai/deployments/m/a%2f..%2f..%2fsecret/chat/completions", "/openai/deployments/m/..%5csecret",
		"/openai/deployments/../m/chat/completions", "/v1/../v1/chat/completions", "/v1/files/..", "/..", "/v1/chat/completions/.",
	} {
		n := newNet()
		tr := balance(t, n, azure("a", serves("m")), azure("b", serves("secret")))
		req := newChat(t, "/")
		req.URL.Path, req.URL.RawPath = unescapePath(path)
		resp, _ := send(t, tr, req)
		require.Equal(t, 404, resp.StatusCode, path)
		require.Zero(t, n.sends(), path)
	}
	for _, path := range []string{"/openai/deployments/gpt-4.1/chat/completions", "/openai/deployments/a%2F..%2Fb/chat/completions", "/openai/deployments/..x/chat/completions"} {
		n := newNet()
		req := newChat(t, "/")
		req.URL.Path, req.URL.RawPath = unescapePath(path)
		resp, _ := send(t, balance(t, n, azure("a")), req)
		require.Equal(t, 200, resp.StatusCode, path)
		require.Equal(t, path, n.last().path)
	}
}

func FuzzOperation(f *testing.F) {
	for _, s := range slices.Concat(operations, foundryOperations) {
		for _, prefix := range []string{"/v1/", "/openai/v1/", "/openai/", "/openai/deployments/m/", "/", "//x/v1/v1/"} {
			f.Add(strings.Fields(s.methods)[0], prefix+s.path)
		}
	}
	f.Add("GET", "/v1/files/%zz/%2e%2e//../"+strings.Repeat("a", 1000))
	f.Fuzz(func(t *testing.T, method, path string) {
		r := request{Request: &http.Request{Method: method}, target: parsePath(path)}
		require.NotNil(t, r.spec())
		for _, id := range r.target.ids(method) {
			require.True(t, isID(id.id))
		}
		if r.dots {
			require.Empty(t, r.op)
		}
		if r.dialect == "" {
			return
		}
		// It is read again as what it was.
		again := parsePath((&backend{dialect: OpenAI}).path(target{dialect: r.dialect, op: r.op, model: r.target.model, segment: r.segment}, ""))
		if isCollection(strings.Split(r.op, "/")[0]) {
			require.Equal(t, r.op, again.op, path)
			require.Equal(t, r.node, again.node)
		}
	})
}
