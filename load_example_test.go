package spillover_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/spillover-go/spillover"
)

// The file is docs/spillover.yaml.
func ExampleLoad() {
	for _, name := range []string{"PTU_KEY", "EASTUS_KEY", "WESTUS_KEY", "OPENAI_KEY"} {
		os.Setenv(name, "key")
	}
	cfg, err := spillover.Load("docs/spillover.yaml")
	if err != nil {
		log.Fatal(err)
	}
	lb, err := spillover.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	fmt.Println(lb)
	// Output: spillover.Transport(ptu, eastus, westus, openai)
}

// Load reports all errors of a file together, with their positions.
func ExampleLoad_errors() {
	path := filepath.Join(os.TempDir(), "spillover-example.yaml")
	defer os.Remove(path)
	err := os.WriteFile(path, []byte(`
max_wait: 30
backends:
  - name: eastus
    url: ftp://eastus.openai.azure.com
    api_key: ${NO_SUCH_KEY}
    wieght: 2
`), 0o600)
	if err != nil {
		log.Fatal(err)
	}
	_, err = spillover.Load(path)
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		var loadError *spillover.LoadError
		errors.As(err, &loadError)
		fmt.Printf("%d:%d: %s: %v\n", loadError.Line, loadError.Column, loadError.Path, loadError.Err)
	}
	// Output:
	// 2:11: max_wait: must be a duration with its unit, such as 30s, 1m30s or 250ms, not 30
	// 5:10: backends["eastus"].url: scheme "ftp" is neither https nor http
	// 6:14: backends["eastus"].api_key: the variable NO_SUCH_KEY is not set
	// 7:5: backends["eastus"]: unknown key "wieght"; did you mean "weight"?
}
