package spillover

import (
	"net/http"
	"slices"
	"strings"
)

// An operationSpec is what the transport must know of one operation of the API.
// All of it is a matter of places: nothing is read out of how an id is spelt.
type operationSpec struct {
	methods string // separated by spaces; HEAD counts as GET
	path    string // below the dialect's prefix; {segments} in braces are ids, but for {model} and {version}
	traits  trait
	model   string // places of the model in the body, the one that decides first
	ids     string // places of ids in the body
}

// A place is the keys on the way to a value, joined by dots; every array on the
// way is looked into. In a form the first key is the part. A place that ends in
// a star is the id of an item, and binds the request only if the element is a
// reference, or reasoning that nobody but its maker can read.

type trait uint

const (
	// The operation leaves nothing behind at the service: any deployment of the
	// model can answer it, and answer it again. So its stream is read until its
	// first content before it is handed over.
	stateless trait = 1 << iota
	// On classic Azure the path names the deployment (the SDKs' own tables, and
	// Azure's reference).
	deploymentInPath
	// The model is in the query of a POST, as ?model=.
	modelInQuery
	// The model of the body is a base model, which every resource calls alike.
	baseModel
	// On classic Azure the body must not name the deployment that the path names.
	noModelBesidePath
	// Its answers tell the ids of what is stored.
	answersIDs
	// The ids of its path and of the list that it answers are items.
	ofItems
)

const (
	deployed   = stateless | deploymentInPath
	responding = stateless | answersIDs

	toolIDs = "tools.container tools.container.file_ids tools.environment.container_id tools.environment.file_ids " +
		"tools.input_image_mask.file_id tools.vector_store_ids"
	inputIDs      = "input.id* input.file_id input.content.file_id input.output.file_id"
	responseIDs   = "previous_response_id conversation conversation.id prompt.id " + inputIDs + " " + toolIDs
	resourceIDs   = "tool_resources.code_interpreter.file_ids tool_resources.file_search.vector_store_ids tool_resources.file_search.vector_stores.file_ids"
	messageIDs    = "messages.attachments.file_id messages.content.image_file.file_id"
	sessionModels = "session.model session.audio.input.transcription.model"
	sessionIDs    = "session.prompt.id session.audio.output.voice.id"
)

// operations are those of OpenAI's API reference and of Azure's, as of November
// 2026. What is not among them is taken for one that creates state, and is
// pinned by the ids in its path.
var operations = []operationSpec{
	{"POST", "chat/completions", deployed, "model", "messages.content.file.file_id messages.audio.id audio.voice.id"},
	{"GET", "chat/completions", answersIDs, "", ""},
	{"GET POST DELETE", "chat/completions/{completion_id}", answersIDs, "", ""},
	{"GET", "chat/completions/{completion_id}/messages", answersIDs | ofItems, "", ""},
	{"POST", "completions", deployed, "model", ""},
	{"POST", "embeddings", deployed, "model", ""},
	{"POST", "moderations", stateless, "model", ""},
	{"POST", "decisions", stateless, "model", ""},

	{"POST", "responses", responding, "model", responseIDs},
	{"POST", "responses/input_tokens", responding, "model", responseIDs},
	{"POST", "responses/compact", responding, "model", responseIDs},
	{"GET DELETE", "responses/{response_id}", answersIDs, "", ""},
	{"POST", "responses/{response_id}/cancel", answersIDs, "", ""},
	{"GET", "responses/{response_id}/input_items", answersIDs | ofItems, "", ""},
	{"POST GET", "conversations", answersIDs, "", "items.id* items.content.file_id"},
	{"GET POST DELETE", "conversations/{conversation_id}", answersIDs, "", ""},
	{"GET POST", "conversations/{conversation_id}/items", answersIDs | ofItems, "", "items.id* items.content.file_id"},
	{"GET DELETE", "conversations/{conversation_id}/items/{item_id}", answersIDs | ofItems, "", ""},

	{"POST", "audio/speech", deployed, "model", "voice.id"},
	{"POST", "audio/transcriptions", deployed, "model", ""},
	{"POST", "audio/translations", deployed, "model", ""},
	{"GET POST", "audio/voices", answersIDs, "", "consent"},
	{"GET DELETE", "audio/voices/{voice_id}", answersIDs, "", ""},
	{"GET POST", "audio/voice_consents", answersIDs, "", ""},
	{"GET POST DELETE", "audio/voice_consents/{consent_id}", answersIDs, "", ""},
	{"POST", "images/generations", deployed | noModelBesidePath, "model", ""},
	{"POST", "images/edits", deployed | noModelBesidePath, "model", "images.file_id mask.file_id"},
	{"POST", "images/variations", stateless, "model", ""},
	{"POST", "content_provenance_checks", answersIDs, "", ""},

	{"GET POST", "videos", answersIDs, "model", "input_reference.file_id characters.id"},
	{"POST", "videos/edits", answersIDs, "model", "video.id"},
	{"POST", "videos/extensions", answersIDs, "model", "video.id"},
	{"POST", "videos/characters", answersIDs, "", ""},
	{"GET", "videos/characters/{character_id}", answersIDs, "", ""},
	{"GET DELETE", "videos/{video_id}", answersIDs, "", ""},
	{"GET", "videos/{video_id}/content", answersIDs, "", ""},
	{"POST", "videos/{video_id}/remix", answersIDs, "model", ""},
	{"GET POST", "video/generations/jobs", answersIDs, "model", ""},
	{"GET DELETE", "video/generations/jobs/{job_id}", answersIDs, "", ""},
	{"GET", "video/generations/{generation_id}", answersIDs, "", ""},
	{"GET", "video/generations/{generation_id}/content/video", 0, "", ""},
	{"GET", "video/generations/{generation_id}/content/thumbnail", 0, "", ""},

	{"GET", "realtime", modelInQuery, "", ""},
	{"POST", "realtime/client_secrets", answersIDs, sessionModels, sessionIDs},
	{"POST", "realtime/translations/client_secrets", answersIDs, sessionModels, ""},
	{"POST", "realtime/sessions", answersIDs, "model input_audio_transcription.model", "prompt.id voice.id"},
	{"POST", "realtime/transcription_sessions", answersIDs, "model input_audio_transcription.model", ""},
	{"POST", "realtime/calls", answersIDs | modelInQuery, sessionModels, sessionIDs},
	{"POST", "realtime/calls/{call_id}/accept", answersIDs, "model audio.input.transcription.model", "prompt.id audio.output.voice.id"},
	{"POST", "realtime/calls/{call_id}/hangup", 0, "", ""},
	{"POST", "realtime/calls/{call_id}/refer", 0, "", ""},
	{"POST", "realtime/calls/{call_id}/reject", 0, "", ""},
	{"POST", "realtimeapi/sessions", answersIDs, "model input_audio_transcription.model", ""},
	{"GET POST", "live/sessions", answersIDs | modelInQuery, sessionModels, sessionIDs},
	{"GET", "live/{session_id}", answersIDs, "", ""},
	{"GET DELETE", "live/sessions/{session_id}", answersIDs, "", ""},
	{"POST", "live/sessions/{session_id}/accept", answersIDs, sessionModels, sessionIDs},
	{"POST", "live/sessions/{session_id}/fork", answersIDs, sessionModels, sessionIDs},
	{"GET", "live/sessions/{session_id}/attach", 0, "", ""},
	{"GET", "live/sessions/{session_id}/content", 0, "", ""},
	{"POST", "live/sessions/{session_id}/hangup", 0, "", ""},
	{"POST", "live/sessions/{session_id}/refer", 0, "", ""},
	{"POST", "live/sessions/{session_id}/reject", 0, "", ""},

	{"GET POST", "files", answersIDs, "", ""},
	{"GET DELETE", "files/{file_id}", answersIDs, "", ""},
	{"GET", "files/{file_id}/content", 0, "", ""},
	{"POST", "files/import", answersIDs, "", ""},
	{"POST", "uploads", answersIDs, "", ""},
	{"POST", "uploads/{upload_id}/cancel", answersIDs, "", ""},
	{"POST", "uploads/{upload_id}/complete", answersIDs, "", "part_ids"},
	{"POST", "uploads/{upload_id}/parts", answersIDs, "", ""},
	{"GET POST", "batches", answersIDs, "", "input_file_id"},
	{"GET", "batches/{batch_id}", answersIDs, "", ""},
	{"POST", "batches/{batch_id}/cancel", answersIDs, "", ""},
	{"GET POST", "vector_stores", answersIDs, "", "file_ids"},
	{"GET POST DELETE", "vector_stores/{vector_store_id}", answersIDs, "", ""},
	{"POST", "vector_stores/{vector_store_id}/search", 0, "", ""},
	{"GET POST", "vector_stores/{vector_store_id}/files", answersIDs, "", "file_id"},
	{"GET POST DELETE", "vector_stores/{vector_store_id}/files/{file_id}", answersIDs, "", ""},
	{"GET", "vector_stores/{vector_store_id}/files/{file_id}/content", 0, "", ""},
	{"POST", "vector_stores/{vector_store_id}/file_batches", answersIDs, "", "file_ids files.file_id"},
	{"GET", "vector_stores/{vector_store_id}/file_batches/{batch_id}", answersIDs, "", ""},
	{"POST", "vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel", answersIDs, "", ""},
	{"GET", "vector_stores/{vector_store_id}/file_batches/{batch_id}/files", answersIDs, "", ""},
	{"GET POST", "containers", answersIDs, "", "file_ids"},
	{"GET DELETE", "containers/{container_id}", answersIDs, "", ""},
	{"GET POST", "containers/{container_id}/files", answersIDs, "", "file_id"},
	{"GET DELETE", "containers/{container_id}/files/{file_id}", answersIDs, "", ""},
	{"GET", "containers/{container_id}/files/{file_id}/content", 0, "", ""},
	{"GET POST", "skills", answersIDs, "", ""},
	{"GET POST DELETE", "skills/{skill_id}", answersIDs, "", ""},
	{"GET", "skills/{skill_id}/content", 0, "", ""},
	{"GET POST", "skills/{skill_id}/versions", answersIDs, "", ""},
	{"GET DELETE", "skills/{skill_id}/versions/{version}", answersIDs, "", ""},
	{"GET", "skills/{skill_id}/versions/{version}/content", 0, "", ""},

	{"GET", "models", 0, "", ""},
	{"GET DELETE", "models/{model}", 0, "", ""},
	{"GET POST", "fine_tuning/jobs", answersIDs | baseModel, "", "training_file validation_file"},
	{"GET", "fine_tuning/jobs/{job_id}", answersIDs, "", ""},
	{"GET", "fine_tuning/jobs/{job_id}/checkpoints", answersIDs, "", ""},
	{"GET", "fine_tuning/jobs/{job_id}/events", 0, "", ""},
	{"POST", "fine_tuning/jobs/{job_id}/cancel", answersIDs, "", ""},
	{"POST", "fine_tuning/jobs/{job_id}/pause", answersIDs, "", ""},
	{"POST", "fine_tuning/jobs/{job_id}/resume", answersIDs, "", ""},
	{"GET POST", "fine_tuning/checkpoints/{checkpoint}/permissions", answersIDs, "", ""},
	{"DELETE", "fine_tuning/checkpoints/{checkpoint}/permissions/{permission_id}", 0, "", ""},
	{"POST", "fine_tuning/alpha/graders/run", baseModel, "", ""},
	{"POST", "fine_tuning/alpha/graders/validate", baseModel, "", ""},
	{"GET POST", "evals", answersIDs | baseModel, "", ""},
	{"GET POST DELETE", "evals/{eval_id}", answersIDs, "", ""},
	{"GET POST", "evals/{eval_id}/runs", answersIDs, "data_source.model", "data_source.source.id"},
	{"GET POST DELETE", "evals/{eval_id}/runs/{run_id}", answersIDs, "", ""},
	{"GET", "evals/{eval_id}/runs/{run_id}/output_items", answersIDs | ofItems, "", ""},
	{"GET", "evals/{eval_id}/runs/{run_id}/output_items/{output_item_id}", answersIDs | ofItems, "", ""},

	{"GET POST", "assistants", answersIDs, "model", resourceIDs},
	{"GET POST DELETE", "assistants/{assistant_id}", answersIDs, "model", resourceIDs},
	{"POST", "threads", answersIDs, "", messageIDs + " " + resourceIDs},
	{"POST", "threads/runs", answersIDs, "model", "assistant_id thread." + strings.ReplaceAll(messageIDs+" "+resourceIDs, " ", " thread.") + " " + resourceIDs},
	{"GET POST DELETE", "threads/{thread_id}", answersIDs, "", resourceIDs},
	{"GET POST", "threads/{thread_id}/messages", answersIDs, "", "attachments.file_id content.image_file.file_id"},
	{"GET POST DELETE", "threads/{thread_id}/messages/{message_id}", answersIDs, "", ""},
	{"GET POST", "threads/{thread_id}/runs", answersIDs, "model", "assistant_id additional_" + strings.ReplaceAll(messageIDs, " ", " additional_")},
	{"GET POST", "threads/{thread_id}/runs/{run_id}", answersIDs, "", ""},
	{"POST", "threads/{thread_id}/runs/{run_id}/cancel", answersIDs, "", ""},
	{"POST", "threads/{thread_id}/runs/{run_id}/submit_tool_outputs", answersIDs, "", ""},
	{"GET", "threads/{thread_id}/runs/{run_id}/steps", answersIDs, "", ""},
	{"GET", "threads/{thread_id}/runs/{run_id}/steps/{step_id}", answersIDs, "", ""},

	{"GET POST", "agents", answersIDs, "model", "vault_ids"},
	{"GET POST DELETE", "agents/{agent_id}", answersIDs, "model", "vault_ids"},
	{"GET POST", "agents/sessions", answersIDs, "model agent.model", "agent_id agent.id environment_id environment.id vault_ids"},
	{"GET POST DELETE", "agents/sessions/{session_id}", answersIDs, "model", ""},
	{"GET POST", "agents/sessions/{session_id}/events", answersIDs, "", ""},
	{"GET", "agents/sessions/{session_id}/items", answersIDs | ofItems, "", ""},
	{"GET", "agents/sessions/{session_id}/turns", answersIDs | ofItems, "", ""},
	{"GET", "agents/sessions/{session_id}/turns/{turn_id}", answersIDs, "", ""},
	{"GET", "agents/sessions/{session_id}/artifacts", answersIDs, "", ""},
	{"GET DELETE", "agents/sessions/{session_id}/artifacts/{artifact_id}", answersIDs, "", ""},
	{"GET", "agents/sessions/{session_id}/artifacts/{artifact_id}/content", 0, "", ""},
	{"GET", "agents/sessions/{session_id}/subagents", answersIDs, "", ""},
	{"GET", "agents/sessions/{session_id}/subagents/{subagent_id}", answersIDs, "", ""},
	{"GET POST", "agents/environments/templates", answersIDs, "", "vault_ids"},
	{"GET POST DELETE", "agents/environments/templates/{environment_template_id}", answersIDs, "", "vault_ids"},
	{"GET", "agents/environments/{environment_id}", answersIDs, "", ""},
	{"GET POST", "agents/environments/{environment_id}/files", answersIDs, "", "file_id"},
	{"GET POST", "vaults", answersIDs, "", ""},
	{"GET POST DELETE", "vaults/{vault_id}", answersIDs, "", ""},
	{"GET POST", "vaults/{vault_id}/credentials", answersIDs, "", ""},
	{"GET POST DELETE", "vaults/{vault_id}/credentials/{credential_id}", answersIDs, "", ""},
	{"GET POST", "webhooks", answersIDs, "", ""},
	{"GET POST DELETE", "webhooks/{webhook_id}", answersIDs, "", ""},
	{"POST", "chatkit/sessions", answersIDs, "", "workflow.id"},
	{"POST", "chatkit/sessions/{session_id}/cancel", answersIDs, "", ""},
	{"GET", "chatkit/threads", answersIDs, "", ""},
	{"GET DELETE", "chatkit/threads/{thread_id}", answersIDs, "", ""},
	{"GET", "chatkit/threads/{thread_id}/items", answersIDs | ofItems, "", ""},
}

// foundryOperations are those that Microsoft Foundry has outside of OpenAI's
// API. They are sent as they came, to backends that are of that kind.
var foundryOperations = []operationSpec{
	{"POST", "models/chat/completions", stateless, "model", ""},
	{"POST", "models/embeddings", stateless, "model", ""},
	{"POST", "models/images/embeddings", stateless, "model", ""},
	{"GET", "models/info", 0, "", ""},
	{"POST", "anthropic/v1/messages", stateless, "model", ""},
	{"POST", "anthropic/v1/messages/count_tokens", stateless, "model", ""},
}

// unknownOperation is what an operation is taken for that is not in the table.
var unknownOperation = operationSpec{"", "", answersIDs | modelInQuery, "model", "file_id file_ids input_file_id vector_store_id vector_store_ids " +
	"previous_response_id response_id conversation conversation_id container container_id assistant_id thread_id run_id batch_id upload_id session_id agent_id vault_id vault_ids video_id"}

// answerPlaces are where answers, and the events of streams, tell the ids of
// what is stored, whatever the operation. The caller's own data is never among
// them.
const answerPlaces = "id data.id " +
	"file_id input_file_id output_file_id error_file_id training_file validation_file result_files fine_tuned_model " +
	"assistant_id thread_id run_id vector_store_id container_id batch_id upload_id session_id agent_id environment_id response_id conversation_id " +
	"conversation conversation.id session.id file.id generations.id " +
	"output.id* output.container_id item.id* item.container_id " +
	"response.id response.conversation.id response.output.id* response.output.container_id " +
	"choices.message.audio.id choices.delta.audio.id"

// queryPlaces are the parameters of a query that are ids.
var queryPlaces = []string{"call_id", "after", "before", "run_id"}

// headerPlaces are the headers of answers that tell an id: two as the path of
// what was made, two as the id alone.
var headerPlaces = struct{ paths, ids []string }{[]string{"Location", "Operation-Location"}, []string{"Openai-Call-Id", "X-Openai-Call-Id"}}

// A pathNode is what stands below some segments of a path in the table.
type pathNode struct {
	literal map[string]*pathNode
	id      *pathNode // below any other segment
	name    string    // of the segment in braces
	specs   []*compiledSpec
}

// A compiledSpec is a row of the table, ready for use.
type compiledSpec struct {
	operationSpec
	models *keyNode // the places of the model alone
	body   *keyNode // of the model and of ids
	form   *keyNode // the same in a form
}

var (
	operationTree = compileOperations(operations)
	foundryTree   = compileOperations(foundryOperations)
	unknownSpec   = compile(unknownOperation)

	answerTree     = newKeyNode("", answerPlaces)
	itemAnswerTree = newKeyNode("", strings.Replace(answerPlaces, "id data.id", "id* data.id*", 1))

	statelessPaths = pathsThat(stateless)
	deployedPaths  = pathsThat(deploymentInPath)
)

func compile(s operationSpec) *compiledSpec {
	model := s.model
	if model == "" && !s.has(baseModel) {
		model = "model" // what a JSON body calls so is one, wherever it may come to be
	}
	return &compiledSpec{s, newKeyNode(model, ""), newKeyNode(model, s.ids), newKeyNode(s.model, s.ids)}
}

func compileOperations(specs []operationSpec) *pathNode {
	root := &pathNode{}
	for _, s := range specs {
		n := root
		for segment := range strings.SplitSeq(s.path, "/") {
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
		n.specs = append(n.specs, compile(s))
	}
	return root
}

func pathsThat(t trait) map[string]bool {
	paths := map[string]bool{}
	for _, s := range slices.Concat(operations, foundryOperations) {
		if s.has(t) {
			paths[s.path] = true
		}
	}
	return paths
}

func (s operationSpec) has(t trait) bool { return s.traits&t != 0 }

// isCollection tells whether a segment is the first of operations in the table.
func isCollection(segment string) bool { return operationTree.literal[segment] != nil }

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
func (n *pathNode) find(op string) *pathNode {
	for segment, rest := cutSegment(op); segment != "" && n != nil; segment, rest = cutSegment(rest) {
		n = n.below(segment)
	}
	return n
}

// spec is the row for a method; that of unknown operations if there is none.
func (n *pathNode) spec(method string) *compiledSpec {
	if n != nil {
		if method == "" || method == http.MethodHead {
			method = http.MethodGet
		}
		for _, s := range n.specs {
			if containsWord(s.methods, method) {
				return s
			}
		}
	}
	return unknownSpec
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

// A keyNode is what stands below some keys of a JSON text in the table.
type keyNode struct {
	children map[string]*keyNode
	model    int  // 1 for the place that decides, 2 for the next, …; 0 for none
	id       bool // its value, or each of an array's, is an id
	item     bool // and that is an item's
	entry    bool // its elements are items that may be references
	flag     bool // its value is looked for, and is no name
}

// newKeyNode is the tree of places.
func newKeyNode(models, ids string) *keyNode {
	root := &keyNode{}
	place := func(path string) *keyNode {
		n := root
		for key := range strings.SplitSeq(path, ".") {
			if n.children == nil {
				n.children = map[string]*keyNode{}
			}
			if n.children[key] == nil {
				n.children[key] = &keyNode{}
			}
			n = n.children[key]
		}
		return n
	}
	for i, path := range strings.Fields(models) {
		place(path).model = i + 1
	}
	for _, path := range strings.Fields(ids) {
		path, item := strings.CutSuffix(path, "*")
		n := place(path)
		n.id, n.item = true, item
		if parent, ok := strings.CutSuffix(path, ".id"); ok && item {
			place(parent).entry = true
		}
	}
	return root
}

// child is the node below a key, which is quoted.
func (n *keyNode) child(quoted []byte) *keyNode {
	if n == nil || len(n.children) == 0 {
		return nil
	}
	if c := n.children[string(quoted[1:len(quoted)-1])]; c != nil || !plain(quoted) {
		if c == nil {
			if key, ok := unquote(quoted); ok {
				return n.children[key]
			}
		}
		return c
	}
	return nil
}

// maxOperations bounds the operations that are told apart. They are known ones;
// all others share one place.
const maxOperations = 64

var operationNumbers = func() map[string]int {
	var names []string
	for op := range statelessPaths {
		names = append(names, op)
	}
	for root := range operationTree.literal {
		if !statelessPaths[root] {
			names = append(names, root)
		}
	}
	slices.Sort(names)
	numbers := map[string]int{}
	for i, name := range names[:min(len(names), maxOperations-1)] {
		numbers[name] = i + 1
	}
	return numbers
}()

// operationIndex is the place of an operation, or of the collection that it is
// about; 0 for one that is not known.
func operationIndex(op string) int {
	if n := operationNumbers[op]; n > 0 {
		return n
	}
	root, _ := cutSegment(op)
	return operationNumbers[root]
}

// operationName is what a place is called.
func operationName(index int) string {
	for name, i := range operationNumbers {
		if i == index {
			return name
		}
	}
	return ""
}
