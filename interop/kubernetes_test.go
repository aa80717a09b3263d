package interop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/spillover-go/spillover"
	_ "github.com/spillover-go/spillover/entra" // for auth: entra
)

// manifests are the objects in docs/kubernetes, by kind.
func manifests(t *testing.T) map[string]map[string]any {
	files, err := filepath.Glob("../docs/kubernetes/*.yaml")
	require.NoError(t, err)
	objects := map[string]map[string]any{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		decoder := yaml.NewDecoder(bytes.NewReader(text))
		for {
			var object map[string]any
			err := decoder.Decode(&object)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, file)
			kind := object["kind"].(string)
			require.NotContains(t, objects, kind, file)
			require.NotEmpty(t, object["apiVersion"], file)
			require.NotEmpty(t, at(t, object, "metadata", "name"), file)
			objects[kind] = object
		}
	}
	require.ElementsMatch(t, []string{"ConfigMap", "Secret", "ServiceAccount", "Deployment", "Service", "PodDisruptionBudget", "PodMonitor"}, slices.Collect(maps.Keys(objects)))
	return objects
}

// at is what an object has at a path of keys and indices.
func at(t *testing.T, value any, keys ...any) any {
	t.Helper()
	for _, key := range keys {
		switch key := key.(type) {
		case string:
			m, ok := value.(map[string]any)
			require.True(t, ok && m[key] != nil, "nothing at %q of %v", key, keys)
			value = m[key]
		case int:
			list, ok := value.([]any)
			require.True(t, ok && key < len(list), "nothing at %d of %v", key, keys)
			value = list[key]
		}
	}
	return value
}

// The manifests belong together: names, labels, ports and mounts.
func TestKubernetesManifestsAreConsistent(t *testing.T) {
	objects := manifests(t)
	deployment, pod := objects["Deployment"], at(t, objects["Deployment"], "spec", "template", "spec")
	container := at(t, pod, "containers", 0)
	labels := at(t, deployment, "spec", "template", "metadata", "labels").(map[string]any)
	for _, selector := range []any{
		at(t, deployment, "spec", "selector", "matchLabels"), at(t, objects["Service"], "spec", "selector"),
		at(t, objects["PodDisruptionBudget"], "spec", "selector", "matchLabels"), at(t, objects["PodMonitor"], "spec", "selector", "matchLabels"),
	} {
		for name, value := range selector.(map[string]any) {
			require.Equal(t, value, labels[name])
		}
	}
	require.Equal(t, "true", labels["azure.workload.identity/use"])
	require.Equal(t, at(t, objects["ServiceAccount"], "metadata", "name"), at(t, pod, "serviceAccountName"))
	require.Equal(t, at(t, objects["ConfigMap"], "metadata", "name"), at(t, pod, "volumes", 0, "configMap", "name"))
	require.Equal(t, at(t, objects["Secret"], "metadata", "name"), at(t, pod, "volumes", 1, "secret", "secretName"))
	for i := range 2 {
		mount := at(t, container, "volumeMounts", i).(map[string]any)
		require.Equal(t, at(t, pod, "volumes", i, "name"), mount["name"])
		require.NotContains(t, mount, "subPath", "it is never updated")
	}
	require.Equal(t, []any{"-config=" + at(t, container, "volumeMounts", 0, "mountPath").(string) + "/spillover.yaml"}, at(t, container, "args"))
	var ports []any
	for _, port := range at(t, container, "ports").([]any) {
		ports = append(ports, at(t, port, "name"))
	}
	require.Contains(t, ports, at(t, objects["PodMonitor"], "spec", "podMetricsEndpoints", 0, "port"))
	require.Contains(t, ports, at(t, objects["Service"], "spec", "ports", 0, "targetPort"))
	page, err := os.ReadFile("../docs/kubernetes.md")
	require.NoError(t, err)
	for _, port := range at(t, container, "ports").([]any) {
		require.Contains(t, string(page), fmt.Sprintf(`":%d"`, at(t, port, "containerPort")), "the program listens on it")
	}
	files, err := filepath.Glob("../docs/kubernetes/*.yaml")
	require.NoError(t, err)
	for _, file := range files {
		require.Contains(t, string(page), "| ["+filepath.Base(file)+"](kubernetes/"+filepath.Base(file)+")")
	}
	for _, probe := range []string{"readinessProbe", "livenessProbe"} {
		require.Contains(t, ports, at(t, container, probe, "httpGet", "port"))
		require.Contains(t, string(page), `"GET `+at(t, container, probe, "httpGet", "path").(string)+`"`)
	}
	require.Contains(t, string(page), "5*time.Minute")
	require.Greater(t, at(t, pod, "terminationGracePeriodSeconds").(int), 5*60+at(t, container, "lifecycle", "preStop", "sleep", "seconds").(int))
	require.Equal(t, 40, at(t, deployment, "spec", "replicas"))
}

// The configuration in the ConfigMap is valid with the files of the Secret.
func TestKubernetesConfigurationIsValid(t *testing.T) {
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "prod")
	objects := manifests(t)
	text := at(t, objects["ConfigMap"], "data", "spillover.yaml").(string)

	compiler := jsonschema.NewCompiler()
	schema, err := compiler.Compile("../docs/config.schema.json")
	require.NoError(t, err)
	require.NoError(t, schema.Validate(asEditorsSee(t, "spillover.yaml", []byte(text))))
	schemaText, err := os.ReadFile("../docs/config.schema.json")
	require.NoError(t, err)
	address := strings.TrimPrefix(strings.Split(text, "\n")[0], "# yaml-language-server: $schema=")
	require.Contains(t, string(schemaText), `"$id": "`+address+`"`)

	dir := t.TempDir()
	container := at(t, objects["Deployment"], "spec", "template", "spec", "containers", 0)
	keys := at(t, container, "volumeMounts", 1, "mountPath").(string)
	for name, key := range at(t, objects["Secret"], "stringData").(map[string]any) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(key.(string)), 0o600))
		require.Contains(t, text, "api_key_file: "+path.Join(keys, name)+"\n", "each key is used")
	}
	file := filepath.Join(dir, "spillover.yaml")
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(text, keys, dir)), 0o600))
	cfg, err := spillover.Load(file)
	require.NoError(t, err)
	require.Equal(t, "entra", cfg.Backends[0].Auth)
	lb, err := spillover.New(cfg)
	require.NoError(t, err)
	require.NoError(t, lb.Close())
}
