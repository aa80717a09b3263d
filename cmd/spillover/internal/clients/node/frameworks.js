// The tests of Vercel's AI SDK and of LangChain, which are called with the URL of the server and the key.

import { createAzure } from "@ai-sdk/azure";
import { createOpenAI } from "@ai-sdk/openai";
import { AzureChatOpenAI, ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { embed, generateText, streamText } from "ai";

const prompt = "Hello";

const openai = (base, apiKey) => createOpenAI({ baseURL: base + "/v1", apiKey });
const azure = (base, apiKey) => createAzure({ baseURL: base + "/openai", apiKey, apiVersion: "2024-10-21", useDeploymentBasedUrls: true });

async function generate(model, maxRetries = 0) {
  const { text, usage, response } = await generateText({ model, prompt, maxRetries });
  return { text, by: response.headers["x-spillover-backend"], tokens: usage.outputTokens };
}

async function streamed(model) {
  const seen = { text: "" };
  const { fullStream } = streamText({ model, prompt, maxRetries: 0, onError() {} }); // or the SDK prints the error
  try {
    for await (const part of fullStream) {
      if (part.type === "text-delta") seen.text += part.text;
      if (part.type === "error") Object.assign(seen, sdkFailure(part.error));
      if (part.type === "finish" && !seen.error) Object.assign(seen, { finish: part.finishReason, tokens: part.totalUsage.outputTokens });
    }
  } catch (error) {
    Object.assign(seen, sdkFailure(error));
  }
  return seen;
}

function sdkFailure(error) {
  const body = error.data?.error ?? error;
  return { error: error.name ?? typeof error, status: error.statusCode, code: body.code ?? undefined, retryAfter: error.responseHeaders?.["retry-after"] };
}

const rethrown = (run) => (base, apiKey) => run(base, apiKey).catch(sdkFailure);

const langchain = (base, apiKey) => new ChatOpenAI({ model: "gpt-4o", apiKey, maxRetries: 0, configuration: { baseURL: base + "/v1" } });
const langchainAzure = (base, apiKey) =>
  new AzureChatOpenAI({
    // Without model, the body names gpt-3.5-turbo, whatever the deployment is.
    azureOpenAIApiKey: apiKey,
    azureOpenAIEndpoint: base,
    azureOpenAIApiDeploymentName: "gpt-4o",
    azureOpenAIApiVersion: "2024-10-21",
    maxRetries: 0,
  });

async function invoke(model) {
  const { content, usage_metadata } = await model.invoke(prompt);
  return { text: content, tokens: usage_metadata.output_tokens };
}

async function chunks(model, failure) {
  const seen = { text: "" };
  try {
    for await (const chunk of await model.stream(prompt)) {
      seen.text += chunk.content;
      seen.finish = chunk.response_metadata.finish_reason ?? seen.finish;
      seen.tokens = chunk.usage_metadata?.output_tokens ?? seen.tokens;
    }
  } catch (error) {
    Object.assign(seen, failure(error));
  }
  return seen;
}

// The tests; failure describes an error of OpenAI's SDK, on which LangChain is built.
export const frameworks = (failure) => ({
  "AI SDK": rethrown((...at) => generate(openai(...at).chat("gpt-4o"))),
  "AI SDK retries": rethrown((...at) => generate(openai(...at).chat("gpt-4o"), 2)),
  "AI SDK responses": rethrown((...at) => generate(openai(...at).responses("gpt-4o"))),
  "AI SDK azure": rethrown((...at) => generate(azure(...at).chat("gpt-4o"))),
  "AI SDK stream": rethrown((...at) => streamed(openai(...at).chat("gpt-4o"))),
  "AI SDK responses stream": rethrown((...at) => streamed(openai(...at).responses("gpt-4o"))),
  "AI SDK azure stream": rethrown((...at) => streamed(azure(...at).chat("gpt-4o"))),
  async "AI SDK embeddings"(base, apiKey) {
    const { embedding } = await embed({ model: openai(base, apiKey).embedding("gpt-4o"), value: "a" });
    return { dimensions: embedding.length };
  },

  LangChain: (...at) => invoke(langchain(...at)),
  "LangChain azure": (...at) => invoke(langchainAzure(...at)),
  "LangChain stream": (...at) => chunks(langchain(...at), failure),
  "LangChain azure stream": (...at) => chunks(langchainAzure(...at), failure),
  async "LangChain embeddings"(base, apiKey) {
    const model = new OpenAIEmbeddings({ model: "gpt-4o", apiKey, configuration: { baseURL: base + "/v1" } });
    return { dimensions: (await model.embedQuery("a")).length };
  },
});
