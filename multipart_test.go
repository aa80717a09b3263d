package spillover_test

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/wiretest"
)

// writeForm is a form as mime/multipart writes it.
func writeForm(t testing.TB, parts ...wiretest.FormField) (contentType, text string) {
	var b strings.Builder
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		var part io.Writer
		var err error
		if p.File != "" {
			part, err = w.CreateFormFile(p.Name, p.File)
		} else {
			part, err = w.CreateFormField(p.Name)
		}
		require.NoError(t, err)
		_, err = io.WriteString(part, p.Content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return w.FormDataContentType(), b.String()
}

// formTo sends a form to one backend, which calls m by the name n.
func formTo(t testing.TB, d spillover.Dialect, path, contentType, text string) sent {
	n := newNet()
	tr := balance(t, n, spillover.Backend{Name: "b", URL: "https://b", Dialect: d, APIKey: "k", APIVersion: map[spillover.Dialect]string{spillover.Azure: "1"}[d],
		Models: []spillover.Model{{Name: "m", Deployment: "n"}}})
	resp, _ := send(t, tr, formRequest(t, path, contentType, text))
	require.Equal(t, 200, resp.StatusCode)
	return n.Seen[0]
}

func formRequest(t testing.TB, path, contentType, text string) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://foo.openai.azure.com"+path, strings.NewReader(text))
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType)
	return req
}

var (
	// A file with all that could be taken for the end of it.
	hostileFile = wiretest.File("file", "speech.mp3", "\x00\xff\r\n--\r\n--not-the-boundary\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nevil\r\n"+
		"--\r\n\r\n\r\n{\"model\":\"evil\"}"+strings.Repeat("\r\n-", 100))
	modelField = wiretest.Field("model", "m")
	otherField = wiretest.Field("response_format", "json")
)

func TestFormModel(t *testing.T) {
	for name, parts := range map[string][]wiretest.FormField{
		"before the file": {modelField, hostileFile, otherField},
		"after the file":  {otherField, hostileFile, modelField},
		"two files":       {hostileFile, wiretest.File("mask", "model", "x"), modelField},
		"a file by name":  {wiretest.File("model", "model.bin", "evil"), modelField},
		"others by name":  {wiretest.Field("models", "evil"), wiretest.Field("my model", "evil"), wiretest.Field("", "evil"), modelField},
		"alone":           {modelField},
		"twice":           {modelField, wiretest.Field("model", "second")},
	} {
		for _, op := range []string{"audio/transcriptions", "audio/translations", "images/edits", "images/variations"} {
			contentType, text := writeForm(t, parts...)
			got := formTo(t, spillover.OpenAI, "/v1/"+op, contentType, text)
			require.Equal(t, "/v1/"+op, got.Path, name)
			at := strings.LastIndex(text, "\r\n\r\nm\r\n") + 4
			require.Equal(t, text[:at]+"n"+text[at+1:], got.Body, "%s: nothing else has changed", name)
			require.EqualValues(t, len(got.Body), got.Length)
		}
	}
}

func TestFormSpellings(t *testing.T) {
	for name, part := range map[string]string{
		"unquoted":         "Content-Disposition: form-data; name=model",
		"quoted":           `Content-Disposition: form-data; name="model"`,
		"lower case":       `content-disposition:form-data;name="model"`,
		"with a type":      "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=\"model\"",
		"with a length":    "Content-Disposition: form-data; name=\"model\"\r\nContent-Length: 1",
		"extended":         `Content-Disposition: form-data; name*=utf-8''model`,
		"parameters about": `Content-Disposition: form-data; x="y;name=z"; name="model"; filename=""`,
	} {
		text := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nname=\"model\"\r\n--b\r\n" + part + "\r\n\r\nm\r\n--b--\r\n"
		for _, contentType := range []string{"multipart/form-data; boundary=b", `Multipart/Form-Data; charset=utf-8; boundary="b"`} {
			got := formTo(t, spillover.AzureV1, "/v1/audio/transcriptions", contentType, text)
			require.Equal(t, strings.Replace(text, "\r\n\r\nm\r\n", "\r\n\r\nn\r\n", 1), got.Body, name)
		}
	}
}

// A classic path names the deployment, so that the form need not.
func TestFormFromPath(t *testing.T) {
	const path = "/openai/deployments/m/audio/transcriptions?api-version=2024-10-21"
	contentType, text := writeForm(t, hostileFile, otherField)
	got := formTo(t, spillover.AzureV1, path, contentType, text)
	require.Equal(t, "/openai/v1/audio/transcriptions", got.Path)
	require.EqualValues(t, len(got.Body), got.Length)
	require.True(t, strings.HasSuffix(got.Body, text))
	parts, err := wiretest.ReadForm(contentType, got.Body)
	require.NoError(t, err)
	require.Equal(t, []wiretest.FormField{wiretest.Field("model", "n"), hostileFile, otherField}, parts)

	// What the form says of it is of no account, and is renamed all the same.
	contentType, text = writeForm(t, hostileFile, wiretest.Field("model", "whisper-1"))
	got = formTo(t, spillover.OpenAI, path, contentType, text)
	parts, err = wiretest.ReadForm(contentType, got.Body)
	require.NoError(t, err)
	require.Equal(t, []wiretest.FormField{hostileFile, wiretest.Field("model", "n")}, parts)

	got = formTo(t, spillover.Azure, path, contentType, text)
	require.Equal(t, "/openai/deployments/n/audio/transcriptions", got.Path)
	require.Equal(t, text, got.Body, "a classic path out: the form stays as it is")
	got = formTo(t, spillover.Azure, "/v1/audio/transcriptions", writeFormOf(t, &text, hostileFile, modelField), text)
	require.Equal(t, "/openai/deployments/n/audio/transcriptions", got.Path)
	require.Equal(t, text, got.Body)
}

func writeFormOf(t testing.TB, text *string, parts ...wiretest.FormField) (contentType string) {
	contentType, *text = writeForm(t, parts...)
	return contentType
}

func TestFormIsReplayed(t *testing.T) {
	for _, getBody := range []bool{true, false} {
		n := newNet()
		n.On(host("a"), status(429, "{}"))
		named := func(name string) func(*spillover.Backend) {
			return func(b *spillover.Backend) {
				b.Dialect, b.Models = spillover.AzureV1, []spillover.Model{{Name: "m", Deployment: name}}
			}
		}
		tr := balance(t, n, azure("a", named("longer-name")), azure("b", named("m"), priority(2)))
		contentType, text := writeForm(t, hostileFile, modelField, otherField)
		req := formRequest(t, "/v1/audio/transcriptions", contentType, text)
		if !getBody {
			req.GetBody, req.ContentLength = nil, -1
		}
		resp, _ := send(t, tr, req)
		require.Equal(t, "b", servedBy(resp))
		require.Equal(t, strings.Replace(text, "\r\n\r\nm\r\n", "\r\n\r\nlonger-name\r\n", 1), n.Seen[0].Body)
		require.Equal(t, text, n.Seen[1].Body)
		for _, s := range n.Seen {
			require.EqualValues(t, len(s.Body), s.Length)
		}
	}
}

// An upload is of no model, whatever it contains, and is not read here.
func TestFormUploads(t *testing.T) {
	for _, path := range []string{"/v1/files", "/v1/uploads/upload_1/parts", "/openai/files?api-version=1"} {
		contentType, text := writeForm(t, wiretest.Field("purpose", "batch"), modelField, hostileFile)
		require.Equal(t, text, formTo(t, spillover.AzureV1, path, contentType, text).Body)

		n := newNet()
		req := formRequest(t, path, contentType, text)
		opened := 0
		getBody := req.GetBody
		req.GetBody = func() (io.ReadCloser, error) { opened++; return getBody() }
		send(t, balance(t, n, azure("a")), req)
		require.Zero(t, opened)
	}
}

func TestFormBroken(t *testing.T) {
	contentType, text := writeForm(t, hostileFile, modelField)
	_, params, err := mime.ParseMediaType(contentType)
	require.NoError(t, err)
	dash := "--" + params["boundary"]
	for name, form := range map[string][2]string{
		"no boundary":         {"multipart/form-data", text},
		"another boundary":    {"multipart/form-data; boundary=x", text},
		"an empty boundary":   {`multipart/form-data; boundary=""`, text},
		"broken type":         {"multipart/form-data; boundary=\"", text},
		"empty":               {contentType, " "},
		"cut in the head":     {contentType, text[:len(dash)+10]},
		"cut in the file":     {contentType, text[:len(text)/2]},
		"cut in the name":     {contentType, text[:strings.LastIndex(text, "\r\n\r\nm")+5]},
		"boundary in a line":  {contentType, "x" + dash + "\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n" + dash + "--\r\n"},
		"only the end":        {contentType, dash + "--\r\n"},
		"another disposition": {contentType, dash + "\r\nContent-Disposition: attachment; name=\"model\"\r\n\r\nm\r\n" + dash + "--\r\n"},
		"broken disposition":  {contentType, dash + "\r\nContent-Disposition: form-data; name=\"model\r\n\r\nm\r\n" + dash + "--\r\n"},
		"no disposition":      {contentType, dash + "\r\nX: name=\"model\"\r\n\r\nm\r\n" + dash + "--\r\n"},
		"behind the end":      {contentType, dash + "--\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n" + dash + "--\r\n"},
		"longer boundary": {contentType, dash + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n\r\n" +
			dash + "x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n" + dash + "--\r\n"},
	} {
		n := newNet()
		tr := balance(t, n, spillover.Backend{Name: "b", URL: "https://b", Dialect: spillover.OpenAI, APIKey: "k", Models: []spillover.Model{{Name: "m", Deployment: "n"}}})
		resp, _ := send(t, tr, formRequest(t, "/v1/audio/transcriptions", form[0], form[1]))
		require.Equal(t, 200, resp.StatusCode, "it is for the service to say: %s", name)
		require.Equal(t, form[1], n.Seen[0].Body, name)
	}
}

// A form that ends its lines with LF alone can be read, but it must not get
// parts whose lines end otherwise.
func TestFormWithBareLineFeeds(t *testing.T) {
	const contentType = "multipart/form-data; boundary=b"
	const text = "--b\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\n\nx\n--b--\n"
	got := formTo(t, spillover.AzureV1, "/openai/deployments/m/audio/transcriptions?api-version=1", contentType, text)
	parts, err := wiretest.ReadForm(contentType, got.Body)
	require.NoError(t, err)
	require.Contains(t, parts, wiretest.File("file", "f", "x"), "%q", got.Body)
}

// However the boundary looks, forms that are written can be read.
func TestFormBoundaries(t *testing.T) {
	for _, boundary := range []string{"b", "----WebKitFormBoundary7MA4YWxkTrZu0gW", "a b c", "'()+_,-./:=?", strings.Repeat("x", 70)} {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		require.NoError(t, w.SetBoundary(boundary))
		part, err := w.CreateFormFile("file", `a"b\c.mp3`)
		require.NoError(t, err)
		fmt.Fprintf(part, "\r\n--%s", boundary[:len(boundary)-1])
		require.NoError(t, w.WriteField("model", "m"))
		require.NoError(t, w.Close())
		got := formTo(t, spillover.AzureV1, "/v1/audio/transcriptions", w.FormDataContentType(), b.String())
		require.Equal(t, strings.Replace(b.String(), "\r\n\r\nm\r\n", "\r\n\r\nn\r\n", 1), got.Body, boundary)
	}
}

// A part of JSON may be called a file, as browsers do with a Blob, and may
// begin with spaces.
func TestJSONInAForm(t *testing.T) {
	for head, want := range map[string]string{
		"Content-Disposition: form-data; name=\"session\"\r\n":                                                             "m-east",
		"Content-Disposition: form-data; name=\"session\"; filename=\"blob\"\r\nContent-Type: application/json\r\n":        "m-east",
		"content-type: Application/JSON; charset=utf-8\r\ncontent-disposition: form-data; filename=blob; name=session\r\n": "m-east",
		"Content-Disposition: form-data; name=\"session\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n":             "",
	} {
		for _, space := range []string{"", "\n ", "\r\n\t"} {
			body := "--b\r\nContent-Disposition: form-data; name=\"sdp\"\r\n\r\nv=0\r\n--b\r\n" + head + "\r\n" + space + `{"type":"realtime","model":"m"}` + "\r\n--b--\r\n"
			n := newNet()
			req := posts(t, http.MethodPost, "https://foo.example/v1/realtime/calls", body)
			req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
			send(t, callsMEast(t, n, spillover.OpenAI), req)
			if want == "" {
				require.Equal(t, body, n.Last().Body)
				continue
			}
			require.Equal(t, "b", n.Last().Host)
			require.Equal(t, strings.Replace(body, `"m"`, `"m-east"`, 1), n.Last().Body)
		}
	}
	// A file that has the name of the model's part is a file.
	body := "--b\r\nContent-Disposition: form-data; name=\"model\"; filename=\"x.json\"\r\nContent-Type: application/json\r\n\r\nother\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n"
	n := newNet()
	req := posts(t, http.MethodPost, "https://foo.example/v1/audio/transcriptions", body)
	req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	send(t, callsMEast(t, n, spillover.OpenAI), req)
	require.Equal(t, strings.Replace(body, "\r\nm\r\n", "\r\nm-east\r\n", 1), n.Last().Body)
}
