package interop

import (
	"errors"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	einochat "github.com/cloudwego/eino-ext/components/model/openai"
	einoclient "github.com/meguminnnnnnnnn/go-openai"
	openaiv1 "github.com/openai/openai-go"
	openaigo "github.com/openai/openai-go/v3"
	goopenai "github.com/sashabaranov/go-openai"
)

// aText is an error of no type.
const aText = "a text"

// A failure is what an SDK's error tells its caller.
type failure struct {
	kind    string // what errors.As finds; "a text" is nothing else
	status  int    // 0: it does not tell
	code    string
	message string // a field, or the text of the error
	header  http.Header
}

func failureOf(err error) failure {
	var (
		goOpenAI *goopenai.APIError
		openAI   *openaigo.Error
		openAI1  *openaiv1.Error
		azure    *azcore.ResponseError
		eino     *einochat.APIError
		client   *einoclient.APIError
	)
	switch {
	case errors.As(err, &goOpenAI):
		return failure{"`*openai.APIError`", goOpenAI.HTTPStatusCode, text(goOpenAI.Code), goOpenAI.Message, nil}
	case errors.As(err, &openAI):
		return failure{"`*openai.Error`", openAI.StatusCode, openAI.Code, openAI.Message, openAI.Response.Header}
	case errors.As(err, &openAI1):
		return failure{"`*openai.Error` of openai-go v1", openAI1.StatusCode, openAI1.Code, openAI1.Message, openAI1.Response.Header}
	case errors.As(err, &azure):
		return failure{"`*azcore.ResponseError`", azure.StatusCode, azure.ErrorCode, azure.Error(), azure.RawResponse.Header}
	case errors.As(err, &eino):
		return failure{"`*openai.APIError`", eino.HTTPStatusCode, text(eino.Code), eino.Message, nil}
	case errors.As(err, &client):
		return failure{"`*openai.APIError`", client.HTTPStatusCode, text(client.Code), client.Message, nil}
	}
	return failure{kind: aText, message: err.Error()}
}

// text is a code, which may be a number.
func text(code any) string {
	s, _ := code.(string)
	return s
}
