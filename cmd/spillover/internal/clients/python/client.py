"""Usage: python client.py NAME URL KEY …

Sends the requests of each named test with OpenAI's SDK to the server at URL. It prints what the
program that uses the SDK sees, as one line of JSON for each test.
"""

import asyncio
import json
import sys

import openai

MESSAGES = [{"role": "user", "content": "Hello"}]
REQUEST = {"model": "gpt-4o", "messages": MESSAGES}
STREAM = {**REQUEST, "stream": True, "stream_options": {"include_usage": True}}


def failure(error):
    seen = {"error": type(error).__name__, "status": getattr(error, "status_code", None), "code": getattr(error, "code", None)}
    if getattr(error, "response", None) is not None:
        seen["retryAfter"] = error.response.headers.get("retry-after")
    return {name: value for name, value in seen.items() if value is not None}


def complete(response):
    answer = response.parse()
    return {
        "text": answer.choices[0].message.content,
        "by": response.headers.get("x-spillover-backend"),
        "tokens": answer.usage.completion_tokens,
    }


def chat(client, model="gpt-4o"):
    return complete(client.chat.completions.with_raw_response.create(model=model, messages=MESSAGES))


def add(seen, event):
    for choice in event.choices:
        seen["text"] += choice.delta.content or ""
        if choice.finish_reason:
            seen["finish"] = choice.finish_reason
    if event.usage:
        seen["tokens"] = event.usage.completion_tokens


def stream(client):
    seen = {"text": ""}
    try:
        for event in client.chat.completions.create(**STREAM):
            add(seen, event)
    except Exception as error:
        seen.update(failure(error))
    return seen


async def async_chat(client):
    async with client:
        return complete(await client.chat.completions.with_raw_response.create(**REQUEST))


async def async_stream(client):
    seen = {"text": ""}
    async with client:
        async for event in await client.chat.completions.create(**STREAM):
            add(seen, event)
    return seen


def embeddings(client):
    data = client.embeddings.create(model="gpt-4o", input=["a", "b"]).data
    return {"count": len(data), "dimensions": len(data[0].embedding)}


def close(client):
    count = 0
    with client.chat.completions.create(**STREAM) as events:
        for event in events:
            if event.choices and event.choices[0].delta.content:
                count += 1
            if count == 2:
                break
    return {"count": count}


def run(name, base, key):
    def client(kind=openai.OpenAI, path="/v1", **more):
        return kind(base_url=base + path, api_key=key, **{"max_retries": 0, **more})

    def azure(kind=openai.AzureOpenAI):
        return kind(azure_endpoint=base, api_key=key, api_version="2024-10-21", max_retries=0)

    tests = {
        "chat": lambda: chat(client()),
        "stream": lambda: stream(client()),
        "azure": lambda: chat(azure()),
        "azure stream": lambda: stream(azure()),
        "async": lambda: asyncio.run(async_chat(client(openai.AsyncOpenAI))),
        "async stream": lambda: asyncio.run(async_stream(client(openai.AsyncOpenAI))),
        "async azure": lambda: asyncio.run(async_chat(azure(openai.AsyncAzureOpenAI))),
        "embeddings": lambda: embeddings(client()),
        "models": lambda: {"all": [model.id for model in client().models.list()]},
        "other model": lambda: chat(client(), "other"),
        "wrong path": lambda: chat(client(path="/api")),
        "retries": lambda: chat(client(max_retries=2)),
        "close": lambda: close(client()),
    }
    try:
        return tests[name]()
    except Exception as error:
        return failure(error)


for i in range(1, len(sys.argv), 3):
    print(json.dumps(run(*sys.argv[i : i + 3])))
