package wire

import (
	"net/http"
	"slices"
	"strings"
)

// An operationSpec is what the transport must know of one operation of the API.
// All of it is a matter of places: nothing is read out of how an id is spelt.
type operationRow struct {
	Methods string // separated by spaces; HEAD counts as GET
	Path    string // below the dialect's prefix; {segments} in braces are ids, but for {model} and {version}
	traits  Trait
	Model   string // places of the model in the body, the one that decides first
	IDs     string // places of ids in the body
}

// A place is the keys on the way to a value, joined by dots; every array on the
// way is looked into. In a form the first key is the part. A place that ends in
// a star is the id of an item, and binds the request only if the element is a
// reference, or reasoning that nobody but its maker can read.

type Trait uint

const (
	// Stateless: the operation leaves nothing behind at the service: any deployment of the
	// model can answer it, and answer it again. So its stream is read until its
	// first content before it is handed over.
	Stateless Trait = 1 << iota
	// DeploymentInPath: on classic Azure the path names the deployment (the SDKs' own tables, and
	// Azure's reference).
	DeploymentInPath
	// The ModelInQuery is in the query of a POST, as ?model=.
	ModelInQuery
	// BaseModel: the model of the body is a base model, which every resource calls alike.
	BaseModel
	// NoModelBesidePath: on classic Azure the body must not name the deployment that the path names.
	NoModelBesidePath
	// AnswersIDs: its responses contain the ids of stored objects.
	AnswersIDs
	// OfItems: the ids in its path, and in the list that it returns, are ids of items.
	OfItems
)

const (
	deployed   = Stateless | DeploymentInPath
	responding = Stateless | AnswersIDs

	toolIDs = "tools.container tools.container.file_ids tools.environment.container_id tools.environment.file_ids " +
		"tools.input_image_mask.file_id tools.vector_store_ids"
	inputIDs      = "input.id* input.file_id input.content.file_id input.output.file_id"
	responseIDs   = "previous_response_id conversation conversation.id prompt.id " + inputIDs + " " + toolIDs
	resourceIDs   = "tool_resources.code_interpreter.file_ids tool_resources.file_search.vector_store_ids tool_resources.file_search.vector_stores.file_ids"
	messageIDs    = "messages.attachments.file_id messages.content.image_file.file_id"
	sessionModels = "session.model session.audio.input.transcription.model"
	sessionIDs    = "session.prompt.id session.audio.output.voice.id"
)

// Operations are those of OpenAI's API reference and of Azure's, as of November
// 2026. What is not among them is taken for one that creates state, and is
// pinned by the ids in its path.
var Operations = []operationRow{
	{"POST", "chat/completions", deployed, "model", "messages.content.file.file_id messages.audio.id audio.voice.id"},
	{"GET", "chat/completions", AnswersIDs, "", ""},
	{"GET POST DELETE", "chat/completions/{completion_id}", AnswersIDs, "", ""},
	{"GET", "chat/completions/{completion_id}/messages", AnswersIDs | OfItems, "", ""},
	{"POST", "completions", deployed, "model", ""},
	{"POST", "embeddings", deployed, "model", ""},
	{"POST", "moderations", Stateless, "model", ""},
	{"POST", "decisions", Stateless, "model", ""},

	{"POST", "responses", responding, "model", responseIDs},
	{"POST", "responses/input_tokens", responding, "model", responseIDs},
	{"POST", "responses/compact", responding, "model", responseIDs},
	{"GET DELETE", "responses/{response_id}", AnswersIDs, "", ""},
	{"POST", "responses/{response_id}/cancel", AnswersIDs, "", ""},
	{"GET", "responses/{response_id}/input_items", AnswersIDs | OfItems, "", ""},
	{"POST GET", "conversations", AnswersIDs, "", "items.id* items.content.file_id"},
	{"GET POST DELETE", "conversations/{conversation_id}", AnswersIDs, "", ""},
	{"GET POST", "conversations/{conversation_id}/items", AnswersIDs | OfItems, "", "items.id* items.content.file_id"},
	{"GET DELETE", "conversations/{conversation_id}/items/{item_id}", AnswersIDs | OfItems, "", ""},

	{"POST", "audio/speech", deployed, "model", "voice.id"},
	{"POST", "audio/transcriptions", deployed, "model", ""},
	{"POST", "audio/translations", deployed, "model", ""},
	{"GET POST", "audio/voices", AnswersIDs, "", "consent"},
	{"GET DELETE", "audio/voices/{voice_id}", AnswersIDs, "", ""},
	{"GET POST", "audio/voice_consents", AnswersIDs, "", ""},
	{"GET POST DELETE", "audio/voice_consents/{consent_id}", AnswersIDs, "", ""},
	{"POST", "images/generations", deployed | NoModelBesidePath, "model", ""},
	{"POST", "images/edits", deployed | NoModelBesidePath, "model", "images.file_id mask.file_id"},
	{"POST", "images/variations", Stateless, "model", ""},
	{"POST", "content_provenance_checks", AnswersIDs, "", ""},

	{"GET POST", "videos", AnswersIDs, "model", "input_reference.file_id characters.id"},
	{"POST", "videos/edits", AnswersIDs, "model", "video.id"},
	{"POST", "videos/extensions", AnswersIDs, "model", "video.id"},
	{"POST", "videos/characters", AnswersIDs, "", ""},
	{"GET", "videos/characters/{character_id}", AnswersIDs, "", ""},
	{"GET DELETE", "videos/{video_id}", AnswersIDs, "", ""},
	{"GET", "videos/{video_id}/content", AnswersIDs, "", ""},
	{"POST", "videos/{video_id}/remix", AnswersIDs, "model", ""},
	{"GET POST", "video/generations/jobs", AnswersIDs, "model", ""},
	{"GET DELETE", "video/generations/jobs/{job_id}", AnswersIDs, "", ""},
	{"GET", "video/generations/{generation_id}", AnswersIDs, "", ""},
	{"GET", "video/generations/{generation_id}/content/video", 0, "", ""},
	{"GET", "video/generations/{generation_id}/content/thumbnail", 0, "", ""},

	{"GET", "realtime", ModelInQuery, "", ""},
	{"POST", "realtime/client_secrets", AnswersIDs, sessionModels, sessionIDs},
	{"POST", "realtime/translations/client_secrets", AnswersIDs, sessionModels, ""},
	{"POST", "realtime/sessions", AnswersIDs, "model input_audio_transcription.model", "prompt.id voice.id"},
	{"POST", "realtime/transcription_sessions", AnswersIDs, "model input_audio_transcription.model", ""},
	{"POST", "realtime/calls", AnswersIDs | ModelInQuery, sessionModels, sessionIDs},
	{"POST", "realtime/calls/{call_id}/accept", AnswersIDs, "model audio.input.transcription.model", "prompt.id audio.output.voice.id"},
	{"POST", "realtime/calls/{call_id}/hangup", 0, "", ""},
	{"POST", "realtime/calls/{call_id}/refer", 0, "", ""},
	{"POST", "realtime/calls/{call_id}/reject", 0, "", ""},
	{"POST", "realtimeapi/sessions", AnswersIDs, "model input_audio_transcription.model", ""},
	{"GET POST", "live/sessions", AnswersIDs | ModelInQuery, sessionModels, sessionIDs},
	{"GET", "live/{session_id}", AnswersIDs, "", ""},
	{"GET DELETE", "live/sessions/{session_id}", AnswersIDs, "", ""},
	{"POST", "live/sessions/{session_id}/accept", AnswersIDs, sessionModels, sessionIDs},
	{"POST", "live/sessions/{session_id}/fork", AnswersIDs, sessionModels, sessionIDs},
	{"GET", "live/sessions/{session_id}/attach", 0, "", ""},
	{"GET", "live/sessions/{session_id}/content", 0, "", ""},
	{"POST", "live/sessions/{session_id}/hangup", 0, "", ""},
	{"POST", "live/sessions/{session_id}/refer", 0, "", ""},
	{"POST", "live/sessions/{session_id}/reject", 0, "", ""},

	{"GET POST", "files", AnswersIDs, "", ""},
	{"GET DELETE", "files/{file_id}", AnswersIDs, "", ""},
	{"GET", "files/{file_id}/content", 0, "", ""},
	{"POST", "files/import", AnswersIDs, "", ""},
	{"POST", "uploads", AnswersIDs, "", ""},
	{"POST", "uploads/{upload_id}/cancel", AnswersIDs, "", ""},
	{"POST", "uploads/{upload_id}/complete", AnswersIDs, "", "part_ids"},
	{"POST", "uploads/{upload_id}/parts", AnswersIDs, "", ""},
	{"GET POST", "batches", AnswersIDs, "", "input_file_id"},
	{"GET", "batches/{batch_id}", AnswersIDs, "", ""},
	{"POST", "batches/{batch_id}/cancel", AnswersIDs, "", ""},
	{"GET POST", "vector_stores", AnswersIDs, "", "file_ids"},
	{"GET POST DELETE", "vector_stores/{vector_store_id}", AnswersIDs, "", ""},
	{"POST", "vector_stores/{vector_store_id}/search", 0, "", ""},
	{"GET POST", "vector_stores/{vector_store_id}/files", AnswersIDs, "", "file_id"},
	{"GET POST DELETE", "vector_stores/{vector_store_id}/files/{file_id}", AnswersIDs, "", ""},
	{"GET", "vector_stores/{vector_store_id}/files/{file_id}/content", 0, "", ""},
	{"POST", "vector_stores/{vector_store_id}/file_batches", AnswersIDs, "", "file_ids files.file_id"},
	{"GET", "vector_stores/{vector_store_id}/file_batches/{batch_id}", AnswersIDs, "", ""},
	{"POST", "vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel", AnswersIDs, "", ""},
	{"GET", "vector_stores/{vector_store_id}/file_batches/{batch_id}/files", AnswersIDs, "", ""},
	{"GET POST", "containers", AnswersIDs, "", "file_ids"},
	{"GET DELETE", "containers/{container_id}", AnswersIDs, "", ""},
	{"GET POST", "containers/{container_id}/files", AnswersIDs, "", "file_id"},
	{"GET DELETE", "containers/{container_id}/files/{file_id}", AnswersIDs, "", ""},
	{"GET", "containers/{container_id}/files/{file_id}/content", 0, "", ""},
	{"GET POST", "skills", AnswersIDs, "", ""},
	{"GET POST DELETE", "skills/{skill_id}", AnswersIDs, "", ""},
	{"GET", "skills/{skill_id}/content", 0, "", ""},
	{"GET POST", "skills/{skill_id}/versions", AnswersIDs, "", ""},
	{"GET DELETE", "skills/{skill_id}/versions/{version}", AnswersIDs, "", ""},
	{"GET", "skills/{skill_id}/versions/{version}/content", 0, "", ""},

	{"GET", "models", 0, "", ""},
	{"GET DELETE", "models/{model}", 0, "", ""},
	{"GET POST", "fine_tuning/jobs", AnswersIDs | BaseModel, "", "training_file validation_file"},
	{"GET", "fine_tuning/jobs/{job_id}", AnswersIDs, "", ""},
	{"GET", "fine_tuning/jobs/{job_id}/checkpoints", AnswersIDs, "", ""},
	{"GET", "fine_tuning/jobs/{job_id}/events", 0, "", ""},
	{"POST", "fine_tuning/jobs/{job_id}/cancel", AnswersIDs, "", ""},
	{"POST", "fine_tuning/jobs/{job_id}/pause", AnswersIDs, "", ""},
	{"POST", "fine_tuning/jobs/{job_id}/resume", AnswersIDs, "", ""},
	{"GET POST", "fine_tuning/checkpoints/{checkpoint}/permissions", AnswersIDs, "", ""},
	{"DELETE", "fine_tuning/checkpoints/{checkpoint}/permissions/{permission_id}", 0, "", ""},
	{"POST", "fine_tuning/alpha/graders/run", BaseModel, "", ""},
	{"POST", "fine_tuning/alpha/graders/validate", BaseModel, "", ""},
	{"GET POST", "evals", AnswersIDs | BaseModel, "", ""},
	{"GET POST DELETE", "evals/{eval_id}", AnswersIDs, "", ""},
	{"GET POST", "evals/{eval_id}/runs", AnswersIDs, "data_source.model", "data_source.source.id"},
	{"GET POST DELETE", "evals/{eval_id}/runs/{run_id}", AnswersIDs, "", ""},
	{"GET", "evals/{eval_id}/runs/{run_id}/output_items", AnswersIDs | OfItems, "", ""},
	{"GET", "evals/{eval_id}/runs/{run_id}/output_items/{output_item_id}", AnswersIDs | OfItems, "", ""},

	{"GET POST", "assistants", AnswersIDs, "model", resourceIDs},
	{"GET POST DELETE", "assistants/{assistant_id}", AnswersIDs, "model", resourceIDs},
	{"POST", "threads", AnswersIDs, "", messageIDs + " " + resourceIDs},
	{"POST", "threads/runs", AnswersIDs, "model", "assistant_id thread." + strings.ReplaceAll(messageIDs+" "+resourceIDs, " ", " thread.") + " " + resourceIDs},
	{"GET POST DELETE", "threads/{thread_id}", AnswersIDs, "", resourceIDs},
	{"GET POST", "threads/{thread_id}/messages", AnswersIDs, "", "attachments.file_id content.image_file.file_id"},
	{"GET POST DELETE", "threads/{thread_id}/messages/{message_id}", AnswersIDs, "", ""},
	{"GET POST", "threads/{thread_id}/runs", AnswersIDs, "model", "assistant_id additional_" + strings.ReplaceAll(messageIDs, " ", " additional_")},
	{"GET POST", "threads/{thread_id}/runs/{run_id}", AnswersIDs, "", ""},
	{"POST", "threads/{thread_id}/runs/{run_id}/cancel", AnswersIDs, "", ""},
	{"POST", "threads/{thread_id}/runs/{run_id}/submit_tool_outputs", AnswersIDs, "", ""},
	{"GET", "threads/{thread_id}/runs/{run_id}/steps", AnswersIDs, "", ""},
	{"GET", "threads/{thread_id}/runs/{run_id}/steps/{step_id}", AnswersIDs, "", ""},

	{"GET POST", "agents", AnswersIDs, "model", "vault_ids"},
	{"GET POST DELETE", "agents/{agent_id}", AnswersIDs, "model", "vault_ids"},
	{"GET POST", "agents/sessions", AnswersIDs, "model agent.model", "agent_id agent.id environment_id environment.id vault_ids"},
	{"GET POST DELETE", "agents/sessions/{session_id}", AnswersIDs, "model", ""},
	{"GET POST", "agents/sessions/{session_id}/events", AnswersIDs, "", ""},
	{"GET", "agents/sessions/{session_id}/items", AnswersIDs | OfItems, "", ""},
	{"GET", "agents/sessions/{session_id}/turns", AnswersIDs | OfItems, "", ""},
	{"GET", "agents/sessions/{session_id}/turns/{turn_id}", AnswersIDs, "", ""},
	{"GET", "agents/sessions/{session_id}/artifacts", AnswersIDs, "", ""},
	{"GET DELETE", "agents/sessions/{session_id}/artifacts/{artifact_id}", AnswersIDs, "", ""},
	{"GET", "agents/sessions/{session_id}/artifacts/{artifact_id}/content", 0, "", ""},
	{"GET", "agents/sessions/{session_id}/subagents", AnswersIDs, "", ""},
	{"GET", "agents/sessions/{session_id}/subagents/{subagent_id}", AnswersIDs, "", ""},
	{"GET POST", "agents/environments/templates", AnswersIDs, "", "vault_ids"},
	{"GET POST DELETE", "agents/environments/templates/{environment_template_id}", AnswersIDs, "", "vault_ids"},
	{"GET", "agents/environments/{environment_id}", AnswersIDs, "", ""},
	{"GET POST", "agents/environments/{environment_id}/files", AnswersIDs, "", "file_id"},
	{"GET POST", "vaults", AnswersIDs, "", ""},
	{"GET POST DELETE", "vaults/{vault_id}", AnswersIDs, "", ""},
	{"GET POST", "vaults/{vault_id}/credentials", AnswersIDs, "", ""},
	{"GET POST DELETE", "vaults/{vault_id}/credentials/{credential_id}", AnswersIDs, "", ""},
	{"GET POST", "webhooks", AnswersIDs, "", ""},
	{"GET POST DELETE", "webhooks/{webhook_id}", AnswersIDs, "", ""},
	{"POST", "chatkit/sessions", AnswersIDs, "", "workflow.id"},
	{"POST", "chatkit/sessions/{session_id}/cancel", AnswersIDs, "", ""},
	{"GET", "chatkit/threads", AnswersIDs, "", ""},
	{"GET DELETE", "chatkit/threads/{thread_id}", AnswersIDs, "", ""},
	{"GET", "chatkit/threads/{thread_id}/items", AnswersIDs | OfItems, "", ""},
}

// FoundryOperations are those that Microsoft Foundry has outside of OpenAI's
// API. They are sent as they came, to backends that are of that kind.
var FoundryOperations = []operationRow{
	{"POST", "models/chat/completions", Stateless, "model", ""},
	{"POST", "models/embeddings", Stateless, "model", ""},
	{"POST", "models/images/embeddings", Stateless, "model", ""},
	{"GET", "models/info", 0, "", ""},
	{"POST", "anthropic/v1/messages", Stateless, "model", ""},
	{"POST", "anthropic/v1/messages/count_tokens", Stateless, "model", ""},
}

// UnknownOperation is what an operation is taken for that is not in the table.
var UnknownOperation = operationRow{"", "", AnswersIDs | ModelInQuery, "model", "file_id file_ids input_file_id vector_store_id vector_store_ids " +
	"previous_response_id response_id conversation conversation_id container container_id assistant_id thread_id run_id batch_id upload_id session_id agent_id vault_id vault_ids video_id"}

// AnswerPlaces are where answers, and the events of streams, tell the ids of
// what is stored, whatever the operation. The caller's own data is never among
// them.
const AnswerPlaces = "id data.id " +
	"file_id input_file_id output_file_id error_file_id training_file validation_file result_files fine_tuned_model " +
	"assistant_id thread_id run_id vector_store_id container_id batch_id upload_id session_id agent_id environment_id response_id conversation_id " +
	"conversation conversation.id session.id file.id generations.id " +
	"output.id* output.container_id item.id* item.container_id " +
	"response.id response.conversation.id response.output.id* response.output.container_id " +
	"choices.message.audio.id choices.delta.audio.id"

// QueryPlaces are the parameters of a query that are ids.
var QueryPlaces = []string{"call_id", "after", "before", "run_id"}

// HeaderPlaces are the headers of answers that tell an id: two as the path of
// what was made, two as the id alone.
var HeaderPlaces = struct{ Paths, IDs []string }{[]string{"Location", "Operation-Location"}, []string{"Openai-Call-Id", "X-Openai-Call-Id"}}

// A pathNode is what stands below some segments of a path in the table.
type pathNode struct {
	literal map[string]*pathNode
	id      *pathNode // below any other segment
	name    string    // of the segment in braces
	Specs   []*Spec
}

// A Spec is a row of the table, ready for use.
type Spec struct {
	operationRow
	Models *FieldTree // the places of the model alone
	Body   *FieldTree // of the model and of ids
	Form   *FieldTree // the same in a form
}

var (
	OperationTree = compileOperations(Operations)
	FoundryTree   = compileOperations(FoundryOperations)
	UnknownSpec   = compile(UnknownOperation)

	AnswerTree     = newKeyNode("", AnswerPlaces)
	itemAnswerTree = newKeyNode("", strings.Replace(AnswerPlaces, "id data.id", "id* data.id*", 1))

	StatelessPaths  = pathsThat(Stateless)
	DeploymentPaths = pathsThat(DeploymentInPath)
)

func compile(s operationRow) *Spec {
	model := s.Model
	if model == "" && !s.Has(BaseModel) {
		model = "model" // what a JSON body calls so is one, wherever it may come to be
	}
	return &Spec{s, newKeyNode(model, ""), newKeyNode(model, s.IDs), newKeyNode(s.Model, s.IDs)}
}

func compileOperations(specs []operationRow) *pathNode {
	root := &pathNode{}
	for _, s := range specs {
		n := root
		for segment := range strings.SplitSeq(s.Path, "/") {
			if segment[0] == '{' {
				if n.id == nil {
					n.id = &pathNode{name: strings.Trim(segment, "{}")}
				}
				n = n.id
				continue
			}
			if n.literal == nil {
				n.literal = map[string]*pathNode{}
			}
			if n.literal[segment] == nil {
				n.literal[segment] = &pathNode{}
			}
			n = n.literal[segment]
		}
		n.Specs = append(n.Specs, compile(s))
	}
	return root
}

func pathsThat(t Trait) map[string]bool {
	paths := map[string]bool{}
	for _, s := range slices.Concat(Operations, FoundryOperations) {
		if s.Has(t) {
			paths[s.Path] = true
		}
	}
	return paths
}

func (s operationRow) Has(t Trait) bool { return s.traits&t != 0 }

// IsCollection tells whether a segment is the first of operations in the table.
func IsCollection(segment string) bool { return OperationTree.literal[segment] != nil }

// below is the node below a segment; nil off the table.
func (n *pathNode) below(segment string) *pathNode {
	if n == nil {
		return nil
	}
	if l := n.literal[segment]; l != nil {
		return l
	}
	return n.id
}

// find is the node of an operation's path; nil if the table has none.
func (n *pathNode) Find(op string) *pathNode {
	for segment, rest := CutSegment(op); segment != "" && n != nil; segment, rest = CutSegment(rest) {
		n = n.below(segment)
	}
	return n
}

// spec is the row for a method; that of unknown operations if there is none.
func (n *pathNode) Spec(method string) *Spec {
	if n != nil {
		if method == "" || method == http.MethodHead {
			method = http.MethodGet
		}
		for _, s := range n.Specs {
			if containsWord(s.Methods, method) {
				return s
			}
		}
	}
	return UnknownSpec
}

// containsWord tells whether a list of words, separated by spaces, has one.
func containsWord(words, word string) bool {
	for w := range strings.SplitSeq(words, " ") {
		if w == word {
			return true
		}
	}
	return false
}

// A FieldTree is what stands below some keys of a JSON text in the table.
type FieldTree struct {
	Children    map[string]*FieldTree
	model       int  // 1 for the place that decides, 2 for the next, …; 0 for none
	ID          bool // its value, or each of an array's, is an id
	item        bool // and that is an item's
	listOfItems bool // its elements are items that may be references
	flag        bool // its value is looked for, and is no name
}

// newKeyNode is the tree of places.
func newKeyNode(models, ids string) *FieldTree {
	root := &FieldTree{}
	place := func(path string) *FieldTree {
		n := root
		for key := range strings.SplitSeq(path, ".") {
			if n.Children == nil {
				n.Children = map[string]*FieldTree{}
			}
			if n.Children[key] == nil {
				n.Children[key] = &FieldTree{}
			}
			n = n.Children[key]
		}
		return n
	}
	for i, path := range strings.Fields(models) {
		place(path).model = i + 1
	}
	for path := range strings.FieldsSeq(ids) {
		path, item := strings.CutSuffix(path, "*")
		n := place(path)
		n.ID, n.item = true, item
		if parent, ok := strings.CutSuffix(path, ".id"); ok && item {
			place(parent).listOfItems = true
		}
	}
	return root
}

// child is the node below a key, which is quoted.
func (n *FieldTree) child(quoted []byte) *FieldTree {
	if n == nil || len(n.Children) == 0 {
		return nil
	}
	if c := n.Children[string(quoted[1:len(quoted)-1])]; c != nil || !plain(quoted) {
		if c == nil {
			if key, ok := unquote(quoted); ok {
				return n.Children[key]
			}
		}
		return c
	}
	return nil
}

// MaxOperations bounds the operations that are told apart. They are known ones;
// all others share one place.
const MaxOperations = 64

var operationNumbers = func() map[string]int {
	var names []string
	for op := range StatelessPaths {
		names = append(names, op)
	}
	for root := range OperationTree.literal {
		if !StatelessPaths[root] {
			names = append(names, root)
		}
	}
	slices.Sort(names)
	numbers := map[string]int{}
	for i, name := range names[:min(len(names), MaxOperations-1)] {
		numbers[name] = i + 1
	}
	return numbers
}()

// OperationIndex is the place of an operation, or of the collection that it is
// about; 0 for one that is not known.
func OperationIndex(op string) int {
	if n := operationNumbers[op]; n > 0 {
		return n
	}
	root, _ := CutSegment(op)
	return operationNumbers[root]
}

// OperationName is what a place is called.
func OperationName(index int) string {
	for name, i := range operationNumbers {
		if i == index {
			return name
		}
	}
	return ""
}
