package spillover_test

const (
	classicURL = "https://api.example.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
	v1URL      = "https://api.example.com/v1/chat/completions"
)
