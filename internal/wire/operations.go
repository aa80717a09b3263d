package wire

import "strings"

// An operationRow is what the transport must know about one operation of the API.
// Everything depends on places in the request and the response. Nothing is inferred
// from the spelling of an id.
//
// A place is the keys on the way to a value, joined by dots. Every array on the way is
// searched. In a form the first key is the name of the part. A place that ends in a
// star is the id of an item. It binds the request to a resource only if the element is
// a reference, or reasoning that only the resource that created it can read.
type operationRow struct {
	methods string // separated by spaces; GET includes HEAD
	path    string // below the dialect's prefix; {segments} in braces are ids, except {model} and {version}
	traits  Trait
	model   string // places of models in the body, in order of precedence
	ids     string // places of ids in the body
}

// A Trait is a property of an operation. Several can be combined.
type Trait uint

const (
	// Stateless means that the operation stores nothing at the service: any
	// deployment of the model can answer it, also a second time. Therefore its
	// stream is held until the first content.
	Stateless Trait = 1 << iota
	// DeploymentInPath means that on classic Azure the path names the deployment
	// (the SDKs' own tables, and Azure's reference).
	DeploymentInPath
	// ModelInQuery means that a POST can name the model in its query, as ?model=.
	ModelInQuery
	// UsesBaseModel means that the model in the body is a base model, which has the
	// same name at every resource.
	UsesBaseModel
	// ModelOnlyInPath means that on classic Azure the body must not repeat the
	// deployment that the path names.
	ModelOnlyInPath
	// ReturnsIDs means that responses contain the ids of stored objects.
	ReturnsIDs
	// ReturnsItems means that the ids in the path, and in the list that is
	// returned, are ids of items.
	ReturnsItems
)

// Combinations that several rows of the table share.
const (
	deployed   = Stateless | DeploymentInPath
	responding = Stateless | ReturnsIDs

	toolIDs = "tools.container tools.container.file_ids tools.environment.container_id tools.environment.file_ids " +
		"tools.input_image_mask.file_id tools.vector_store_ids"
	inputIDs      = "input.id* input.file_id input.content.file_id input.output.file_id"
	responseIDs   = "previous_response_id conversation conversation.id prompt.id " + inputIDs + " " + toolIDs
	resourceIDs   = "tool_resources.code_interpreter.file_ids tool_resources.file_search.vector_store_ids tool_resources.file_search.vector_stores.file_ids"
	messageIDs    = "messages.attachments.file_id messages.content.image_file.file_id"
	sessionModels = "session.model session.audio.input.transcription.model"
	sessionIDs    = "session.prompt.id session.audio.output.voice.id"
)

// operations are the operations of OpenAI's and Azure's API references, as of November
// 2026. Any other operation is assumed to create state, and is routed by the ids in its
// path.
var operations = []operationRow{
	{"POST", "chat/completions", deployed, "model", "messages.content.file.file_id messages.audio.id audio.voice.id"},
	{"GET", "chat/completions", ReturnsIDs, "", ""},
	{"GET POST DELETE", "chat/completions/{completion_id}", ReturnsIDs, "", ""},
	{"GET", "chat/completions/{completion_id}/messages", ReturnsIDs | ReturnsItems, "", ""},
	{"POST", "completions", deployed, "model", ""},
	{"POST", "embeddings", deployed, "model", ""},
	{"POST", "moderations", Stateless, "model", ""},
	{"POST", "decisions", Stateless, "model", ""},

	{"POST", "responses", responding, "model", responseIDs},
	{"POST", "responses/input_tokens", responding, "model", responseIDs},
	{"POST", "responses/compact", responding, "model", responseIDs},
	{"GET DELETE", "responses/{response_id}", ReturnsIDs, "", ""},
	{"POST", "responses/{response_id}/cancel", ReturnsIDs, "", ""},
	{"GET", "responses/{response_id}/input_items", ReturnsIDs | ReturnsItems, "", ""},
	{"POST GET", "conversations", ReturnsIDs, "", "items.id* items.content.file_id"},
	{"GET POST DELETE", "conversations/{conversation_id}", ReturnsIDs, "", ""},
	{"GET POST", "conversations/{conversation_id}/items", ReturnsIDs | ReturnsItems, "", "items.id* items.content.file_id"},
	{"GET DELETE", "conversations/{conversation_id}/items/{item_id}", ReturnsIDs | ReturnsItems, "", ""},

	{"POST", "audio/speech", deployed, "model", "voice.id"},
	{"POST", "audio/transcriptions", deployed, "model", ""},
	{"POST", "audio/translations", deployed, "model", ""},
	{"GET POST", "audio/voices", ReturnsIDs, "", "consent"},
	{"GET DELETE", "audio/voices/{voice_id}", ReturnsIDs, "", ""},
	{"GET POST", "audio/voice_consents", ReturnsIDs, "", ""},
	{"GET POST DELETE", "audio/voice_consents/{consent_id}", ReturnsIDs, "", ""},
	{"POST", "images/generations", deployed | ModelOnlyInPath, "model", ""},
	{"POST", "images/edits", deployed | ModelOnlyInPath, "model", "images.file_id mask.file_id"},
	{"POST", "images/variations", Stateless, "model", ""},
	{"POST", "content_provenance_checks", ReturnsIDs, "", ""},

	{"GET POST", "videos", ReturnsIDs, "model", "input_reference.file_id characters.id"},
	{"POST", "videos/edits", ReturnsIDs, "model", "video.id"},
	{"POST", "videos/extensions", ReturnsIDs, "model", "video.id"},
	{"POST", "videos/characters", ReturnsIDs, "", ""},
	{"GET", "videos/characters/{character_id}", ReturnsIDs, "", ""},
	{"GET DELETE", "videos/{video_id}", ReturnsIDs, "", ""},
	{"GET", "videos/{video_id}/content", ReturnsIDs, "", ""},
	{"POST", "videos/{video_id}/remix", ReturnsIDs, "model", ""},
	{"GET POST", "video/generations/jobs", ReturnsIDs, "model", ""},
	{"GET DELETE", "video/generations/jobs/{job_id}", ReturnsIDs, "", ""},
	{"GET", "video/generations/{generation_id}", ReturnsIDs, "", ""},
	{"GET", "video/generations/{generation_id}/content/video", 0, "", ""},
	{"GET", "video/generations/{generation_id}/content/thumbnail", 0, "", ""},

	{"GET", "realtime", ModelInQuery, "", ""},
	{"POST", "realtime/client_secrets", ReturnsIDs, sessionModels, sessionIDs},
	{"POST", "realtime/translations/client_secrets", ReturnsIDs, sessionModels, ""},
	{"POST", "realtime/sessions", ReturnsIDs, "model input_audio_transcription.model", "prompt.id voice.id"},
	{"POST", "realtime/transcription_sessions", ReturnsIDs, "model input_audio_transcription.model", ""},
	{"POST", "realtime/calls", ReturnsIDs | ModelInQuery, sessionModels, sessionIDs},
	{"POST", "realtime/calls/{call_id}/accept", ReturnsIDs, "model audio.input.transcription.model", "prompt.id audio.output.voice.id"},
	{"POST", "realtime/calls/{call_id}/hangup", 0, "", ""},
	{"POST", "realtime/calls/{call_id}/refer", 0, "", ""},
	{"POST", "realtime/calls/{call_id}/reject", 0, "", ""},
	{"POST", "realtimeapi/sessions", ReturnsIDs, "model input_audio_transcription.model", ""},
	{"GET POST", "live/sessions", ReturnsIDs | ModelInQuery, sessionModels, sessionIDs},
	{"GET", "live/{session_id}", ReturnsIDs, "", ""},
	{"GET DELETE", "live/sessions/{session_id}", ReturnsIDs, "", ""},
	{"POST", "live/sessions/{session_id}/accept", ReturnsIDs, sessionModels, sessionIDs},
	{"POST", "live/sessions/{session_id}/fork", ReturnsIDs, sessionModels, sessionIDs},
	{"GET", "live/sessions/{session_id}/attach", 0, "", ""},
	{"GET", "live/sessions/{session_id}/content", 0, "", ""},
	{"POST", "live/sessions/{session_id}/hangup", 0, "", ""},
	{"POST", "live/sessions/{session_id}/refer", 0, "", ""},
	{"POST", "live/sessions/{session_id}/reject", 0, "", ""},

	{"GET POST", "files", ReturnsIDs, "", ""},
	{"GET DELETE", "files/{file_id}", ReturnsIDs, "", ""},
	{"GET", "files/{file_id}/content", 0, "", ""},
	{"POST", "files/import", ReturnsIDs, "", ""},
	{"POST", "uploads", ReturnsIDs, "", ""},
	{"POST", "uploads/{upload_id}/cancel", ReturnsIDs, "", ""},
	{"POST", "uploads/{upload_id}/complete", ReturnsIDs, "", "part_ids"},
	{"POST", "uploads/{upload_id}/parts", ReturnsIDs, "", ""},
	{"GET POST", "batches", ReturnsIDs, "", "input_file_id"},
	{"GET", "batches/{batch_id}", ReturnsIDs, "", ""},
	{"POST", "batches/{batch_id}/cancel", ReturnsIDs, "", ""},
	{"GET POST", "vector_stores", ReturnsIDs, "", "file_ids"},
	{"GET POST DELETE", "vector_stores/{vector_store_id}", ReturnsIDs, "", ""},
	{"POST", "vector_stores/{vector_store_id}/search", 0, "", ""},
	{"GET POST", "vector_stores/{vector_store_id}/files", ReturnsIDs, "", "file_id"},
	{"GET POST DELETE", "vector_stores/{vector_store_id}/files/{file_id}", ReturnsIDs, "", ""},
	{"GET", "vector_stores/{vector_store_id}/files/{file_id}/content", 0, "", ""},
	{"POST", "vector_stores/{vector_store_id}/file_batches", ReturnsIDs, "", "file_ids files.file_id"},
	{"GET", "vector_stores/{vector_store_id}/file_batches/{batch_id}", ReturnsIDs, "", ""},
	{"POST", "vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel", ReturnsIDs, "", ""},
	{"GET", "vector_stores/{vector_store_id}/file_batches/{batch_id}/files", ReturnsIDs, "", ""},
	{"GET POST", "containers", ReturnsIDs, "", "file_ids"},
	{"GET DELETE", "containers/{container_id}", ReturnsIDs, "", ""},
	{"GET POST", "containers/{container_id}/files", ReturnsIDs, "", "file_id"},
	{"GET DELETE", "containers/{container_id}/files/{file_id}", ReturnsIDs, "", ""},
	{"GET", "containers/{container_id}/files/{file_id}/content", 0, "", ""},
	{"GET POST", "skills", ReturnsIDs, "", ""},
	{"GET POST DELETE", "skills/{skill_id}", ReturnsIDs, "", ""},
	{"GET", "skills/{skill_id}/content", 0, "", ""},
	{"GET POST", "skills/{skill_id}/versions", ReturnsIDs, "", ""},
	{"GET DELETE", "skills/{skill_id}/versions/{version}", ReturnsIDs, "", ""},
	{"GET", "skills/{skill_id}/versions/{version}/content", 0, "", ""},

	{"GET", "models", 0, "", ""},
	{"GET DELETE", "models/{model}", 0, "", ""},
	{"GET POST", "fine_tuning/jobs", ReturnsIDs | UsesBaseModel, "", "training_file validation_file"},
	{"GET", "fine_tuning/jobs/{job_id}", ReturnsIDs, "", ""},
	{"GET", "fine_tuning/jobs/{job_id}/checkpoints", ReturnsIDs, "", ""},
	{"GET", "fine_tuning/jobs/{job_id}/events", 0, "", ""},
	{"POST", "fine_tuning/jobs/{job_id}/cancel", ReturnsIDs, "", ""},
	{"POST", "fine_tuning/jobs/{job_id}/pause", ReturnsIDs, "", ""},
	{"POST", "fine_tuning/jobs/{job_id}/resume", ReturnsIDs, "", ""},
	{"GET POST", "fine_tuning/checkpoints/{checkpoint}/permissions", ReturnsIDs, "", ""},
	{"DELETE", "fine_tuning/checkpoints/{checkpoint}/permissions/{permission_id}", 0, "", ""},
	{"POST", "fine_tuning/alpha/graders/run", UsesBaseModel, "", ""},
	{"POST", "fine_tuning/alpha/graders/validate", UsesBaseModel, "", ""},
	{"GET POST", "evals", ReturnsIDs | UsesBaseModel, "", ""},
	{"GET POST DELETE", "evals/{eval_id}", ReturnsIDs, "", ""},
	{"GET POST", "evals/{eval_id}/runs", ReturnsIDs, "data_source.model", "data_source.source.id"},
	{"GET POST DELETE", "evals/{eval_id}/runs/{run_id}", ReturnsIDs, "", ""},
	{"GET", "evals/{eval_id}/runs/{run_id}/output_items", ReturnsIDs | ReturnsItems, "", ""},
	{"GET", "evals/{eval_id}/runs/{run_id}/output_items/{output_item_id}", ReturnsIDs | ReturnsItems, "", ""},

	{"GET POST", "assistants", ReturnsIDs, "model", resourceIDs},
	{"GET POST DELETE", "assistants/{assistant_id}", ReturnsIDs, "model", resourceIDs},
	{"POST", "threads", ReturnsIDs, "", messageIDs + " " + resourceIDs},
	{"POST", "threads/runs", ReturnsIDs, "model", "assistant_id thread." + strings.ReplaceAll(messageIDs+" "+resourceIDs, " ", " thread.") + " " + resourceIDs},
	{"GET POST DELETE", "threads/{thread_id}", ReturnsIDs, "", resourceIDs},
	{"GET POST", "threads/{thread_id}/messages", ReturnsIDs, "", "attachments.file_id content.image_file.file_id"},
	{"GET POST DELETE", "threads/{thread_id}/messages/{message_id}", ReturnsIDs, "", ""},
	{"GET POST", "threads/{thread_id}/runs", ReturnsIDs, "model", "assistant_id additional_" + strings.ReplaceAll(messageIDs, " ", " additional_")},
	{"GET POST", "threads/{thread_id}/runs/{run_id}", ReturnsIDs, "", ""},
	{"POST", "threads/{thread_id}/runs/{run_id}/cancel", ReturnsIDs, "", ""},
	{"POST", "threads/{thread_id}/runs/{run_id}/submit_tool_outputs", ReturnsIDs, "", ""},
	{"GET", "threads/{thread_id}/runs/{run_id}/steps", ReturnsIDs, "", ""},
	{"GET", "threads/{thread_id}/runs/{run_id}/steps/{step_id}", ReturnsIDs, "", ""},

	{"GET POST", "agents", ReturnsIDs, "model", "vault_ids"},
	{"GET POST DELETE", "agents/{agent_id}", ReturnsIDs, "model", "vault_ids"},
	{"GET POST", "agents/sessions", ReturnsIDs, "model agent.model", "agent_id agent.id environment_id environment.id vault_ids"},
	{"GET POST DELETE", "agents/sessions/{session_id}", ReturnsIDs, "model", ""},
	{"GET POST", "agents/sessions/{session_id}/events", ReturnsIDs, "", ""},
	{"GET", "agents/sessions/{session_id}/items", ReturnsIDs | ReturnsItems, "", ""},
	{"GET", "agents/sessions/{session_id}/turns", ReturnsIDs | ReturnsItems, "", ""},
	{"GET", "agents/sessions/{session_id}/turns/{turn_id}", ReturnsIDs, "", ""},
	{"GET", "agents/sessions/{session_id}/artifacts", ReturnsIDs, "", ""},
	{"GET DELETE", "agents/sessions/{session_id}/artifacts/{artifact_id}", ReturnsIDs, "", ""},
	{"GET", "agents/sessions/{session_id}/artifacts/{artifact_id}/content", 0, "", ""},
	{"GET", "agents/sessions/{session_id}/subagents", ReturnsIDs, "", ""},
	{"GET", "agents/sessions/{session_id}/subagents/{subagent_id}", ReturnsIDs, "", ""},
	{"GET POST", "agents/environments/templates", ReturnsIDs, "", "vault_ids"},
	{"GET POST DELETE", "agents/environments/templates/{environment_template_id}", ReturnsIDs, "", "vault_ids"},
	{"GET", "agents/environments/{environment_id}", ReturnsIDs, "", ""},
	{"GET POST", "agents/environments/{environment_id}/files", ReturnsIDs, "", "file_id"},
	{"GET POST", "vaults", ReturnsIDs, "", ""},
	{"GET POST DELETE", "vaults/{vault_id}", ReturnsIDs, "", ""},
	{"GET POST", "vaults/{vault_id}/credentials", ReturnsIDs, "", ""},
	{"GET POST DELETE", "vaults/{vault_id}/credentials/{credential_id}", ReturnsIDs, "", ""},
	{"GET POST", "webhooks", ReturnsIDs, "", ""},
	{"GET POST DELETE", "webhooks/{webhook_id}", ReturnsIDs, "", ""},
	{"POST", "chatkit/sessions", ReturnsIDs, "", "workflow.id"},
	{"POST", "chatkit/sessions/{session_id}/cancel", ReturnsIDs, "", ""},
	{"GET", "chatkit/threads", ReturnsIDs, "", ""},
	{"GET DELETE", "chatkit/threads/{thread_id}", ReturnsIDs, "", ""},
	{"GET", "chatkit/threads/{thread_id}/items", ReturnsIDs | ReturnsItems, "", ""},
}

// foundryOperations are the operations that Microsoft Foundry has in addition to
// OpenAI's API. They are passed on unchanged, to backends of that kind.
var foundryOperations = []operationRow{
	{"POST", "models/chat/completions", Stateless, "model", ""},
	{"POST", "models/embeddings", Stateless, "model", ""},
	{"POST", "models/images/embeddings", Stateless, "model", ""},
	{"GET", "models/info", 0, "", ""},
	{"POST", "anthropic/v1/messages", Stateless, "model", ""},
	{"POST", "anthropic/v1/messages/count_tokens", Stateless, "model", ""},
}

// unknownOperation stands for every operation that is not in the table.
var unknownOperation = operationRow{"", "", ReturnsIDs | ModelInQuery, "model", "file_id file_ids input_file_id vector_store_id vector_store_ids " +
	"previous_response_id response_id conversation conversation_id container container_id assistant_id thread_id run_id batch_id upload_id session_id agent_id vault_id vault_ids video_id"}

// responsePlaces are where responses, and the events of streams, contain the ids of
// stored objects, whatever the operation is. The caller's own data is at none of these
// places.
const responsePlaces = "id data.id " +
	"file_id input_file_id output_file_id error_file_id training_file validation_file result_files fine_tuned_model " +
	"assistant_id thread_id run_id vector_store_id container_id batch_id upload_id session_id agent_id environment_id response_id conversation_id " +
	"conversation conversation.id session.id file.id generations.id " +
	"output.id* output.container_id item.id* item.container_id " +
	"response.id response.conversation.id response.output.id* response.output.container_id " +
	"choices.message.audio.id choices.delta.audio.id"

// queryPlaces are the query parameters that contain ids.
var queryPlaces = []string{"call_id", "after", "before", "run_id"}

// headerPlaces are the response headers that contain an id: two as the path of the
// created object, two as the id alone.
var headerPlaces = struct{ Paths, IDs []string }{[]string{"Location", "Operation-Location"}, []string{"Openai-Call-Id", "X-Openai-Call-Id"}}
