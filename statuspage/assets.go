package statuspage

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"path"
	"strings"
)

//go:embed assets
var files embed.FS

// An asset is a file that the page loads.
type asset struct {
	body      []byte
	mediaType string
}

// assets are the files by their names, which contain a hash of the content, so that
// browsers may keep them. assetNames are these names by those in the directory.
var assets, assetNames = loadAssets()

var mediaTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

func loadAssets() (loaded map[string]asset, names map[string]string) {
	loaded, names = map[string]asset{}, map[string]string{}
	entries, err := files.ReadDir("assets")
	if err != nil {
		panic(err) // it is embedded
	}
	for _, entry := range entries {
		body, err := files.ReadFile("assets/" + entry.Name())
		if err != nil {
			panic(err)
		}
		extension := path.Ext(entry.Name())
		if mediaTypes[extension] == "" {
			continue
		}
		sum := sha256.Sum256(body)
		name := strings.TrimSuffix(entry.Name(), extension) + "-" + hex.EncodeToString(sum[:6]) + extension
		loaded[name], names[entry.Name()] = asset{body, mediaTypes[extension]}, name
	}
	return loaded, names
}

// page is the template of the page.
var page = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"asset": func(name string) string { return "assets/" + assetNames[name] },
}).ParseFS(files, "assets/page.html"))
