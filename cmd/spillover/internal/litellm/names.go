package litellm

import (
	"strconv"
	"strings"
)

// Any text of the input may be a secret at the wrong place, also the name of a setting. So
// notes and errors show only what is known: names of LiteLLM's settings and providers, and
// the names of models in model_list.

// unknownName stands for a name in a path that is not shown.
const unknownName = "?"

// unknownReason is for settings whose name is not shown.
const unknownReason = "an unknown setting; its name is not shown, since it may be a secret"

// nameSet is the set of the words of a text.
func nameSet(words string) map[string]bool {
	set := map[string]bool{}
	for word := range strings.FieldsSeq(words) {
		set[word] = true
	}
	return set
}

// knownSettings are the names in https://docs.litellm.ai/docs/proxy/config_settings and of
// parameters of entries.
var knownSettings = nameSet(`
	model_list litellm_settings router_settings general_settings environment_variables include credential_list
	guardrails callback_settings files_settings finetune_settings mcp_servers mcp_tools prompts vector_store_registry
	assistant_settings search_tools policies agent_list
	credential_name credential_values credential_info

	model_name litellm_params model_info model custom_llm_provider api_base base_url api_key api_version organization
	litellm_credential_name azure_ad_token azure_ad_token_provider tenant_id client_id client_secret azure_scope
	azure_username azure_password rpm tpm max_parallel_requests timeout stream_timeout order weight tags tag_regex
	region_name extra_headers headers extra_body num_retries max_retries cooldown_time mock_response mock_timeout
	drop_params additional_drop_params allowed_openai_params itpm otpm max_budget budget_duration
	cache_control_points cache_control_injection_points use_in_pass_through merge_reasoning_content_in_choices
	litellm_trace_id metadata configurable_clientside_auth_params guardrails prompt_id prompt_integration
	prompt_variables auto_router_config auto_router_config_path auto_router_default_model auto_router_embedding_model
	input_cost_per_token output_cost_per_token input_cost_per_second output_cost_per_second
	aws_region_name aws_access_key_id aws_secret_access_key aws_session_token aws_role_name aws_profile_name
	aws_bedrock_runtime_endpoint vertex_project vertex_location vertex_credentials ssl_verify
	initial_prompt_template roles final_prompt_value bos_token eos_token hf_model_name

	temperature top_p max_tokens max_completion_tokens n stop seed presence_penalty frequency_penalty logit_bias logprobs
	top_logprobs response_format reasoning_effort verbosity service_tier user parallel_tool_calls tools tool_choice store
	modalities audio prediction top_k min_p repetition_penalty stream stream_options thinking dimensions encoding_format
	functions function_call web_search_options input_type voice

	id mode base_model max_input_tokens max_output_tokens access_groups team_id supported_environments blocked
	supports_vision supports_function_calling health_check_model health_check_timeout disable_background_health_check

	routing_strategy redis_host redis_port redis_password redis_url redis_db enable_pre_call_check
	enable_pre_call_checks optional_pre_call_checks allowed_fails allowed_fails_policy disable_cooldowns
	enable_tag_filtering tag_filtering_match_any retry_policy model_group_retry_policy retry_after fallbacks
	context_window_fallbacks content_policy_fallbacks default_fallbacks max_fallbacks model_group_alias model_alias_map
	routing_strategy_args default_max_parallel_requests default_priority polling_interval default_litellm_params
	debug_level client_ttl cache_kwargs cache_responses caching_groups alerting_config assistants_config set_verbose
	provider_budget_config router_general_settings deployment_affinity_ttl_seconds model_group_affinity_config
	ignore_invalid_deployments guardrail_list enable_health_check_routing health_check_staleness_threshold
	health_check_ignore_transient_errors

	success_callback failure_callback callbacks service_callbacks turn_off_message_logging modify_params
	enable_preview_features redact_user_api_key_info mcp_aliases langfuse_default_tags json_logs request_timeout
	force_ipv4 cache cache_params enable_redis_auth_cache disable_end_user_cost_tracking cost_discount_config
	cost_margin_config key_generation_settings default_team_settings default_team_params
	enable_json_schema_validation enable_azure_ad_token_refresh telemetry custom_provider_map ssl_certificate
	default_internal_user_params upperbound_key_generate_params max_internal_user_budget
	internal_user_budget_duration default_key_generate_params use_chat_completions_url_for_anthropic_messages
	route_all_chat_openai_to_responses

	completion_model embedding_model image_generation_model moderation_model disable_spend_logs
	disable_spend_updates disable_master_key_return enable_jwt_auth enforce_user_param allowed_routes public_routes
	admin_only_routes key_management_system key_management_settings master_key database_url
	database_connection_pool_limit database_connection_timeout allow_requests_on_db_unavailable custom_auth
	global_max_parallel_requests infer_model_from_keys background_health_checks health_check_interval
	health_check_details alerting alerting_threshold alerting_args alert_types alert_to_webhook_url
	use_client_credentials_pass_through_routes enforced_params enable_oauth2_auth use_x_forwarded_for
	service_account_settings store_model_in_db store_prompts_in_spend_logs max_request_size_mb
	max_response_size_mb proxy_budget_rescheduler_min_time proxy_budget_rescheduler_max_time proxy_batch_write_at
	custom_key_generate allowed_ips litellm_key_header_name litellm_license litellm_jwtauth ui_access_mode
	forward_openai_org_id forward_client_headers_to_llm_api pass_through_endpoints user_api_key_cache_ttl
	always_include_stream_usage allow_client_side_credentials allow_user_auth user_header_name user_header_mappings
	otel disable_error_logs maximum_spend_logs_retention_period maximum_spend_logs_retention_interval
	disable_retry_on_max_parallel_request_limit_error disable_reset_budget disable_adding_master_key_hash_to_db
	disable_responses_id_security reject_clientside_metadata_tags supported_db_objects user_mcp_management_mode
	proxy_batch_polling_interval default_team_disabled disable_prisma_schema_update custom_sso use_azure_key_vault
	use_google_kms spend_report_frequency oauth2_config_mappings enable_oauth2_proxy_auth

	max_end_user_budget max_end_user_budget_id default_end_user_params timezone extra_spend_tag_headers
	reasoning_auto_summary disable_end_user_cost_tracking_prometheus_only disable_add_transform_inline_image_block
	disable_hf_tokenizer_download enable_key_alias_format_validation disable_copilot_system_to_assistant

	proxy_config
`)

// otherProviders are those of LiteLLM whose API is not OpenAI's, or that need more than a URL.
var otherProviders = nameSet(`
	ai21 aiml anthropic anyscale baseten bedrock clarifai cloudflare codestral cohere cohere_chat dashscope databricks
	deepgram deepinfra elevenlabs featherless_ai friendliai gemini github github_copilot gigachat huggingface
	hyperbolic infinity jina_ai lambda_ai langfuse meta_llama minimax moonshot nebius nlp_cloud novita nscale oci
	perplexity petals predibase replicate sagemaker sagemaker_chat snowflake triton v0
	vercel_ai_gateway vertex_ai vertex_ai_beta vllm volcengine voyage watsonx watsonx_text zai
`)

// join adds a name to a path.
func join(path, name string) string {
	if !knownSettings[name] {
		name = unknownName
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// isUnknown reports whether the name of a value is not shown.
func (v value) isUnknown() bool {
	return v.path == unknownName || strings.HasSuffix(v.path, "."+unknownName)
}

// withName is a value in a path that ends with the name of a model.
func (c *converter) withName(v value, model string) value {
	if v.isUnknown() && c.listed[model] {
		v.path = strings.TrimSuffix(v.path, unknownName) + printable(model)
	}
	return v
}

// notServed says that no backend has a model.
func (c *converter) notServed(model string) string {
	if !c.listed[model] {
		return "model_list has no such model"
	}
	return "no backend serves " + strconv.Quote(printable(model))
}

// without is an error of spillover about a backend, without the texts of the backend.
func (b *backend) without(text string) string {
	texts := []string{b.URL, plain(b.URL), b.APIVersion}
	for _, m := range b.Models {
		texts = append(texts, m.Name, m.Deployment, plain(m.Name), plain(m.Deployment))
	}
	texts = append(texts, b.Tags...)
	for name, v := range b.Headers {
		texts = append(texts, name, v)
	}
	for name := range b.Defaults {
		texts = append(texts, name)
	}
	for _, s := range texts {
		if len(s) > 2 {
			quoted := strconv.Quote(s)
			text = strings.ReplaceAll(text, quoted[1:len(quoted)-1], "…")
		}
	}
	return text
}
