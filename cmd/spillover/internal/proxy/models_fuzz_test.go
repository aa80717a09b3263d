package proxy

import (
	"bytes"
	"encoding/json"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// modelsIn are the values of all members with the name model, in any case, at any depth.
func modelsIn(value any) (models []string) {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			if model, ok := member.(string); ok && strings.ToLower(name) == "model" {
				models = append(models, model)
			}
			models = append(models, modelsIn(member)...)
		}
	case []any:
		for _, element := range v {
			models = append(models, modelsIn(element)...)
		}
	}
	return models
}

// A body that is accepted names no model, however it is read, that the key does not allow.
func FuzzModelCheck(f *testing.F) {
	for _, s := range []string{
		`{"model":"allowed"}`, `{"model":"other"}`, `{"model":"other","model":"allowed"}`, `{"Model":"other","x":{"model":"allowed"}}`, `{"x":[{"model":["other"]},{"mode\u006c":"other"}]}`,
		`{"model":"allowed"}{"model":"other"}`, `{"model":{"model":"other"}}`, `[`, "", "null", "{\"model\":\"allowed\xff\"}",
	} {
		f.Add("application/json", []byte(s))
		f.Add("", []byte(s))
	}
	form := "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nother\r\n--b\r\nContent-Disposition: form-data; name=session\r\n\r\n{}\r\n--b--\r\n"
	f.Add("multipart/form-data; boundary=b", []byte(form))
	f.Add("multipart/form-data; boundary=\"b\"", []byte(form[:60]))
	f.Add("application/x-www-form-urlencoded", []byte("model=allowed&MODEL=other&%6dodel=x"))
	allowed := []string{"allowed", "also"}
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		c := modelCheck{allowed: allowed}
		h := http.Header{}
		if kind != "" {
			h.Set("Content-Type", kind)
		}
		beside := modelCheck{allowed: allowed, ofPath: "allowed"}
		if beside.readBody(h, body) == nil {
			again := modelCheck{allowed: allowed, ofPath: "allowed"}
			replaced := beside.replaced(body)
			require.NoError(t, again.readBody(h, replaced))
			require.Empty(t, again.others)
			require.Equal(t, beside.refused, again.refused)
			require.Equal(t, json.Valid(body), json.Valid(replaced))
		}
		if c.readBody(h, body) != nil || c.refused != nil {
			return
		}
		media, parameters, _ := mime.ParseMediaType(kind)
		if media == "application/sdp" {
			return
		}
		var exact map[string]any
		var folded struct{ Model string }
		if json.Unmarshal(body, &exact) == nil && media == "application/json" {
			if model, ok := exact["model"].(string); ok {
				require.Contains(t, allowed, model)
			}
			if json.Unmarshal(body, &folded) == nil && folded.Model != "" {
				require.Contains(t, allowed, folded.Model)
			}
			require.Subset(t, allowed, modelsIn(exact))
		}
		if media == "multipart/form-data" {
			form, err := multipart.NewReader(bytes.NewReader(body), parameters["boundary"]).ReadForm(1 << 20)
			if err == nil {
				for _, model := range form.Value["model"] {
					require.Contains(t, allowed, model)
				}
			}
		}
	})
}

// A message on a connection names the backend's model where it named the connection's,
// and is otherwise what the caller sent.
func FuzzSocketMessage(f *testing.F) {
	for _, s := range []string{`{"type":"response.create","model":"m","n":1e400}`, `{"type":"x"}`, `{"model":null}`, `{"model":"other"}`, `{"Model":"other","model":"m"}`, `[]`, "", `{"model":"m","a":"<\u2028>"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s := &responsesSocket{e: &exchange{}, model: "m", deployment: "m-east"}
		refused := s.checkNext(websocket.MessageText, text) != nil
		before := topLevel(text)
		var model string
		if json.Unmarshal(before["model"], &model) == nil && before["model"] != nil && string(before["model"]) != "null" {
			require.Equal(t, model != "m", refused)
		}
		if refused {
			return
		}
		sent := s.renamed(websocket.MessageText, text)
		if before["model"] == nil {
			require.Equal(t, string(text), string(sent))
			return
		}
		after := topLevel(sent)
		require.Equal(t, `"m-east"`, string(after["model"]))
		require.Len(t, after, len(before))
		for name, value := range before {
			if name != "model" {
				var want, got bytes.Buffer
				require.NoError(t, json.Compact(&want, value))
				require.NoError(t, json.Compact(&got, after[name]))
				var a, b any
				if json.Unmarshal(want.Bytes(), &a) == nil {
					require.NoError(t, json.Unmarshal(got.Bytes(), &b))
					require.Equal(t, a, b)
				}
			}
		}
	})
}
