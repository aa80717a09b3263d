// Usage: node client.js NAME URL KEY …
//
// Sends the requests of each named test with OpenAI's SDK, with ws or with a framework, to the server at URL. It prints
// what the program that uses the client sees, as one line of JSON for each test.

import { AzureOpenAI, OpenAI } from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import { ResponsesWS } from "openai/resources/responses/ws";
import WebSocket from "ws";

import { frameworks } from "./frameworks.js";

let base, apiKey, client; // of the test
const azure = () => new AzureOpenAI({ endpoint: base, apiKey, apiVersion: "2024-10-21", maxRetries: 0 });
const messages = [{ role: "user", content: "Hello" }];

async function chat(c = client, model = "gpt-4o") {
  const { data, response } = await c.chat.completions.create({ model, messages }).withResponse();
  return { text: data.choices[0].message.content, by: response.headers.get("x-spillover-backend"), tokens: data.usage.completion_tokens };
}

async function stream(c = client) {
  const seen = { text: "" };
  try {
    const events = await c.chat.completions.create({ model: "gpt-4o", messages, stream: true, stream_options: { include_usage: true } });
    for await (const event of events) {
      seen.text += event.choices[0]?.delta?.content ?? "";
      seen.finish = event.choices[0]?.finish_reason ?? seen.finish;
      seen.tokens = event.usage?.completion_tokens ?? seen.tokens;
    }
  } catch (error) {
    Object.assign(seen, failure(error));
  }
  return seen;
}

function failure(error) {
  return { error: error.constructor.name, status: error.status, code: error.code ?? undefined, retryAfter: error.headers?.get?.("retry-after") ?? undefined };
}

// next resolves with the next event of a kind, or rejects with an error.
const next = (emitter, kind) =>
  new Promise((resolve, reject) => {
    emitter.once(kind, resolve);
    emitter.on("error", reject);
  });

const tests = {
  ...frameworks(failure),
  chat: () => chat(),
  stream: () => stream(),
  azure: () => chat(azure()),
  "azure stream": () => stream(azure()),
  "other model": () => chat(client, "other"),
  retries: () => chat(new OpenAI({ baseURL: base + "/v1", apiKey })),
  "wrong path": () => chat(new OpenAI({ baseURL: `${base}/api`, apiKey, maxRetries: 0 })),

  async embeddings() {
    const { data } = await client.embeddings.create({ model: "gpt-4o", input: ["a", "b"] });
    return { count: data.length, dimensions: data[0].embedding.length };
  },
  async models() {
    const all = [];
    for await (const model of client.models.list()) all.push(model.id);
    return { all };
  },
  async responses() {
    const r = await client.responses.create({ model: "gpt-4o", input: "Hello" });
    return { text: r.output_text, tokens: r.usage.output_tokens };
  },
  async "responses stream"() {
    const seen = { text: "" };
    for await (const event of await client.responses.create({ model: "gpt-4o", input: "Hello", stream: true })) {
      if (event.type === "response.output_text.delta") seen.text += event.delta;
      if (event.type === "response.completed") seen.tokens = event.response.usage.output_tokens;
    }
    return seen;
  },

  async abort() {
    const controller = new AbortController();
    const request = { model: "gpt-4o", messages, stream: true };
    const events = await client.chat.completions.create(request, { signal: controller.signal });
    let count = 0;
    for await (const event of events) {
      if (event.choices[0]?.delta?.content && ++count === 2) controller.abort();
    }
    return { count }; // the SDK ends an aborted stream without an error
  },
  async "abort before the response"() {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 1000);
    return client.chat.completions.create({ model: "gpt-4o", messages }, { signal: controller.signal });
  },

  async realtime() {
    const rt = new OpenAIRealtimeWS({ model: "gpt-realtime" }, client);
    const echo = next(rt, "response.create");
    const created = await next(rt, "session.created");
    rt.send({ type: "response.create" });
    const echoed = await echo;
    rt.close();
    return { by: created.by, echoed: echoed.type };
  },
  async "realtime of a browser"() {
    const socket = new WebSocket(base.replace("http", "ws") + "/v1/realtime?model=gpt-realtime", ["realtime", "openai-insecure-api-key." + apiKey]);
    const created = JSON.parse(await next(socket, "message"));
    socket.send("hello");
    const echoed = await next(socket, "message");
    socket.close();
    return { by: created.by, protocol: socket.protocol, echoed: echoed.toString() };
  },
  async "realtime that is refused"() {
    const socket = new WebSocket(base.replace("http", "ws") + "/v1/realtime?model=gpt-realtime");
    return new Promise((resolve) =>
      socket.on("unexpected-response", (request, response) => {
        request.destroy();
        resolve({ status: response.statusCode });
      }),
    );
  },
  async "responses over WebSocket"() {
    const ws = new ResponsesWS(client);
    const both = Promise.all([next(ws, "session.created"), next(ws, "response.create")]);
    ws.send({ type: "response.create", model: "gpt-4o", input: "Hello" });
    const [created, echoed] = await both;
    ws.close();
    return { by: created.by, model: echoed.model };
  },
  async "responses over WebSocket, refused"() {
    const ws = new ResponsesWS(client);
    ws.send({ type: "response.create", model: "other", input: "Hello" });
    const error = await new Promise((resolve) => ws.on("error", resolve));
    ws.close();
    return { error: error.constructor.name, code: error.error?.error?.code };
  },
};

for (let i = 2; i < process.argv.length; i += 3) {
  let name;
  [name, base, apiKey] = process.argv.slice(i);
  client = new OpenAI({ baseURL: base + "/v1", apiKey, maxRetries: 0 });
  console.log(JSON.stringify(await tests[name](base, apiKey).catch(failure)));
}
