package wire

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/wiretest"
)

// findForm finds the model in a form.
func findForm(contentType string, text []byte) BodyInfo {
	w := BodyScanner{Fields: UnknownSpec.Models}
	w.ReadForm(contentType, bytes.NewReader(text))
	return w.Info
}

func FuzzForm(f *testing.F) {
	const end = "\r\n--b--\r\n"
	part := func(head, content string) string { return "--b\r\n" + head + "\r\n\r\n" + content }
	model := `Content-Disposition: form-data; name="model"`
	for _, text := range []string{
		part(model, "m") + end, part("A: b", "\r\n--bx") + "\r\n" + part(model, "") + end, "pre\r\n" + part(model, "m") + "\r\nx", part(model, "\r\n") + "\r\n" + part(model, "n") + end,
		"--b--", "--b\r\n\r\n--b--", "--b\r\n\r\n\r\n--b \t\r\n" + model + "\r\n\r\nm" + end, "--b\n" + model + "\n\nm\n--b--", part(`Content-Disposition: form-data; name=file; filename=x`, model) + end,
		part(model+"\r\nContent-Transfer-Encoding: quoted-printable", "=6d") + end, part("Content-Disposition: form-data;\r\n name=model", "m") + end,
		part(model, "m") + "\r\n--b--\r\n" + part(model, "n") + end, part("", model) + end,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		const contentType = `multipart/form-data; boundary="b"`
		n := findForm(contentType, []byte(text))
		if n.HasModel {
			require.True(t, 0 < n.ModelSpan.From && n.ModelSpan.From <= n.ModelSpan.To && n.ModelSpan.To <= len(text))
			require.Equal(t, text[n.ModelSpan.From:n.ModelSpan.To], n.Model)
		}
		parts, err := wiretest.ReadForm(contentType, text)
		if err != nil || strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\n") && !n.HasModel {
			return // no form, or one with line ends that only mime/multipart understands
		}
		index := -1
		for i, p := range parts {
			if p.Name == "model" && p.File == "" {
				index = i
				break
			}
		}
		if n.HasModel {
			require.GreaterOrEqual(t, index, 0, "there is no model in %q", text)
			require.Equal(t, parts[index].Content, n.Model, "%q", text)
		} else {
			require.True(t, index < 0 || parts[index].Content == "" || strings.Contains(text, "\r\n ") || strings.Contains(text, "\r\n\t") ||
				strings.Contains(text, "Encoding"), "the model is missed in %q", text)
		}
		if !n.HasModel && !n.CanInsert || index >= 0 && !n.HasModel {
			return
		}
		at, name := n.ModelSpan, n.ModelText("new-name")
		if !n.HasModel {
			at, name = Span{n.InsertAt, n.InsertAt}, n.ModelMember("new-name")
		}
		after, err := wiretest.ReadForm(contentType, text[:at.From]+name+text[at.To:])
		require.NoError(t, err, "%q", text)
		want := append([]wiretest.FormField(nil), parts...)
		if n.HasModel {
			want[index].Content = "new-name"
		} else {
			want = append([]wiretest.FormField{wiretest.Field("model", "new-name")}, want...)
		}
		require.Equal(t, want, after, "%q", text)
	})
}

// The size of the pieces in which a form arrives does not matter.
func TestFormInPieces(t *testing.T) {
	part := func(name, content string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + content + "\r\n"
	}
	session := `{"model":"m","prompt":{"id":"p"},"audio":{"input":{"transcription":{"model":"n"}}}}`
	for name, c := range map[string]struct {
		path, form, model string
		ids               []ObjectID
	}{
		"the model":          {"audio/transcriptions", part("x", "--b") + part("model", "m") + "--b--", "m", nil},
		"behind what is big": {"audio/transcriptions", part("file", strings.Repeat("\r\n--bx\r\n--", 20_000)) + part("model", "m") + "--b--", "m", nil},
		"a long one":         {"audio/transcriptions", part("model", strings.Repeat("m", 10*formWindow)) + "--b--", strings.Repeat("m", 10*formWindow), nil},
		"too long":           {"audio/transcriptions", part("model", strings.Repeat("m", 2*maxPartText)) + part("model", "n") + "--b--", "n", nil},
		"an id":              {"audio/voices", part("consent", "cons-1") + part("name", "model") + "--b--", "", []ObjectID{{ID: "cons-1"}}},
		"no id":              {"audio/voices", part("consent", "no id") + part("consent", "auto") + "--b--", "", nil},
		"parts without name": {"audio/voices", part("[]", "consent") + part("[consent", "a") + part("[][consent][]", "b") + part("consent[x]", "c") + "--b--", "", []ObjectID{{ID: "a"}, {ID: "b"}}},
		"a session":          {"realtime/calls", part("sdp", "v=0") + part("session", session) + "--b--", "m", []ObjectID{{ID: "p"}}},
		"a session in parts": {"realtime/calls", part("session[model]", "m") + part("session[prompt][id]", "p") + "--b--", "m", []ObjectID{{ID: "p"}}},
	} {
		for piece, in := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "by halves": iotest.HalfReader, "with its end": iotest.DataErrReader,
		} {
			w := BodyScanner{Fields: operationTree.find(c.path).specs[len(operationTree.find(c.path).specs)-1].Form, MaxIDs: MaxIDs}
			w.ReadForm("multipart/form-data; boundary=b", in(strings.NewReader(c.form)))
			require.Equal(t, c.model, w.Info.Model, "%s, %s", name, piece)
			require.Equal(t, c.ids, w.IDs, "%s, %s", name, piece)
			if w.Info.HasModel && !w.Info.ModelInJSON {
				require.True(t, bytes.Equal([]byte(c.model), []byte(c.form)[w.Info.ModelSpan.From:w.Info.ModelSpan.To]))
			}
		}
	}
}

// Only those parts of a form are parsed that may be the model.
func TestFormOfManyParts(t *testing.T) {
	const end = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n"
	for _, part := range []string{"--b\r\nA:b\r\n\r\n\r\n", "--b\r\nA:model\r\n\r\n\r\n", "--b\r\nContent-Disposition: form-data; name=x\r\n\r\n\r\n"} {
		text := []byte(strings.Repeat(part, 1<<20/len(part)) + end)
		require.Less(t, testing.AllocsPerRun(1, func() {
			require.Equal(t, "m", findForm("multipart/form-data; boundary=b", text).Model)
		}), 200.0)
	}
}

func BenchmarkFormOfManyParts(b *testing.B) {
	text := []byte(strings.Repeat("--b\r\nA:b\r\n\r\n\r\n", 8<<20/15) + "--b--\r\n")
	for b.Loop() {
		findForm("multipart/form-data; boundary=b", text)
	}
}
