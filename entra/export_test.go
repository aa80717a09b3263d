package entra

import (
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
)

// ReplaceCredentials makes "auth: entra" use other credentials, until restore is called.
func ReplaceCredentials(create func(cloud.Configuration) (azcore.TokenCredential, error)) (restore func()) {
	was := newCredential
	newCredential = create
	shared.tokens = nil
	return func() {
		newCredential = was
		shared.tokens = nil
	}
}

// NewCredential creates what "auth: entra" uses in a program.
var NewCredential = newCredential
