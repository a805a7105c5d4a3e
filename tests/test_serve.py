"""The server as its clients meet it: OpenAI's API, in this process and in one of its own, driven by OpenAI's client."""

import asyncio
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tiny_server import CONTEXT, checkpoint_of, serving
from tinygpt import serve
from tinygpt.enginethread import Piece, Token
from tinygpt.openaireply import AnswerText
from tinygpt.openairequest import completion
from tinygpt.service import Service
from tinygpt.webapp import WebConfig, application


@contextmanager
def client_of(*, chats: bool = True, **options: Any) -> Iterator[TestClient]:
    checkpoint = checkpoint_of(chats=chats)
    decoder = checkpoint.decoder(n_slots=5, dtype="float32", threads=1)
    app = application(checkpoint, decoder, WebConfig(model_name="tiny", **options), precision="float32")
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of() as client:
        yield client


def post(client: TestClient, **body: Any) -> Any:
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    return client.post(path, json=body)


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def said(**options: Any) -> str:
    """What the library itself writes."""
    return checkpoint_of().generate(dtype="float32", **options)


def test_completion_is_what_the_library_writes(client: TestClient) -> None:
    body = post(client, prompt="Once", max_tokens=40, seed=3, temperature=0.7, min_p=0.01).json()
    text = said(text="Once", max_new_tokens=40, seed=3, temperature=0.7, min_p=0.01)
    assert (body["choices"][0]["text"], body["usage"]["prompt_tokens"]) == (text, 4)


def test_chat_is_what_the_library_says(client: TestClient) -> None:
    messages = [{"role": "developer", "content": "Be"}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    body = post(client, messages=messages, max_completion_tokens=30, seed=5).json()
    text = said(text="Hi", chat=True, system="Be", max_new_tokens=30, seed=5)
    assert body["choices"][0]["message"] == {"role": "assistant", "content": text, "refusal": None}


def test_a_stream_says_the_same_as_a_whole_answer(client: TestClient) -> None:
    asked = {"prompt": ["one", "two"], "n": 2, "max_tokens": 30, "seed": 1, "logprobs": 2}
    whole = post(client, **asked).json()
    chunks = events(post(client, **asked, stream=True, stream_options={"include_usage": True}).text)
    for choice in whole["choices"]:
        mine = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert "".join(c["text"] for c in mine) == choice["text"]
        assert [t for c in mine for t in (c["logprobs"] or {}).get("tokens", [])] == choice["logprobs"]["tokens"]
        assert mine[-1]["finish_reason"] == choice["finish_reason"]
    assert chunks[-1]["usage"] == whole["usage"]


def test_ids_and_their_text_are_the_same_prompt(client: TestClient) -> None:
    ids = list(b"Once")
    texts = [post(client, prompt=p, seed=1).json()["choices"][0]["text"] for p in ("Once", ids, [ids], ["Once"])]
    assert texts == [texts[0]] * 4


def test_answer_i_has_the_seed_plus_i(client: TestClient) -> None:
    both = [choice["text"] for choice in post(client, prompt="a", n=2, seed=7).json()["choices"]]
    assert both == [post(client, prompt="a", seed=seed).json()["choices"][0]["text"] for seed in (7, 8)]


def test_echo_judges_the_prompt_as_score_does(client: TestClient) -> None:
    body = post(client, prompt=[256, *b"abcd"], max_tokens=0, echo=True, logprobs=1).json()["choices"][0]
    score = checkpoint_of().score("abcd", dtype="float32")
    assert body["text"] == "<|endoftext|>abcd"
    assert body["logprobs"]["token_logprobs"][0] is None
    assert body["logprobs"]["token_logprobs"][1:] == pytest.approx([t.logprob for t in score.tokens], abs=1e-4)
    assert body["logprobs"]["text_offset"] == [0, 13, 14, 15, 16]


def test_a_stop_string_ends_text_and_logprobs(client: TestClient) -> None:
    bias = {str(i): -100 for i in [*range(97), *range(100, 261)]}  # a, b and c are left
    whole = post(client, prompt="a", seed=2, max_tokens=60, logit_bias=bias, logprobs=0).json()["choices"][0]
    cut = post(client, prompt="a", seed=2, max_tokens=60, logit_bias=bias, logprobs=0, stop=["cab", "bca"]).json()
    place = min(place for stop in ("cab", "bca") if (place := whole["text"].find(stop)) >= 0)
    assert cut["choices"][0]["text"] == whole["text"][:place]
    assert cut["choices"][0]["logprobs"]["tokens"] == list(whole["text"][:place])
    assert (cut["choices"][0]["finish_reason"], whole["finish_reason"]) == ("stop", "length")


def test_chat_logprobs_name_bytes_and_the_likeliest(client: TestClient) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    body = post(client, messages=messages, max_tokens=5, logprobs=True, top_logprobs=3, temperature=0).json()
    for entry in body["choices"][0]["logprobs"]["content"]:
        best = entry["top_logprobs"]
        assert (len(best), best[0]["bytes"], best[0]["logprob"]) == (3, entry["bytes"], entry["logprob"])


WRONG: list[tuple[dict[str, Any], str | None]] = [
    ({}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [999]}, "prompt"),
    ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
    ({"prompt": "a", "max_tokens": True}, "max_tokens"),
    ({"prompt": "a", "temperature": "hot"}, "temperature"),
    ({"prompt": "a", "temperature": -1}, "temperature"),
    ({"prompt": "a", "top_p": 0}, "top_p"),
    ({"prompt": "a", "stop": ["a"] * 5}, "stop"),
    ({"prompt": "a", "stop": ""}, "stop"),
    ({"prompt": "a", "n": 0}, "n"),
    ({"prompt": ["a"] * 99, "n": 99}, "n"),
    ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias"),
    ({"prompt": "a", "logit_bias": {"999": 1}}, "logit_bias"),
    ({"prompt": "a", "best_of": 2}, "best_of"),
    ({"prompt": "a", "stream_options": {}}, "stream_options"),
    ({"prompt": "a", "temprature": 1}, "temprature"),
    ({"prompt": "a" * (CONTEXT + 1)}, "prompt"),
    ({"prompt": "a", "model": "other"}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "a"}], "tools": [{}]}, "tools"),
    ({"messages": [{"role": "user", "content": "a"}], "functions": [{}]}, "functions"),
    ({"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "json_object"}}, "response_format"),
    ({"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}, "top_logprobs"),
]


@pytest.mark.parametrize(("body", "param"), WRONG, ids=lambda value: json.dumps(value)[:60])
def test_a_wrong_field_is_named(client: TestClient, body: dict[str, Any], param: str | None) -> None:
    answer = post(client, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (404 if param == "model" else 400, param)


def test_a_prompt_longer_than_the_context_is_refused_not_cut(client: TestClient) -> None:
    error = post(client, prompt="a" * (CONTEXT + 1)).json()["error"]
    assert (error["code"], "65" in error["message"], post(client, prompt="a" * CONTEXT).status_code) == (
        "context_length_exceeded",
        True,
        200,
    )


def test_statuses_of_wrong_calls(client: TestClient) -> None:
    json_type = {"content-type": "application/json"}
    found = {
        "path": client.get("/v1/nothing"),
        "method": client.get("/v1/completions"),
        "type": client.post("/v1/completions", content="{}"),
        "json": client.post("/v1/completions", content="{", headers=json_type),
        "deep": client.post("/v1/completions", content="[" * 100_000, headers=json_type),
        "list": client.post("/v1/completions", content="[]", headers=json_type),
        "size": client.post("/v1/completions", content=" " * (2**20 + 1), headers=json_type),
    }
    statuses = {name: answer.status_code for name, answer in found.items()}
    assert statuses == {"path": 404, "method": 405, "type": 415, "json": 400, "deep": 400, "list": 400, "size": 413}
    assert all(set(answer.json()["error"]) == {"message", "type", "param", "code"} for answer in found.values())


def test_a_model_without_chats_says_so() -> None:
    with client_of(chats=False) as client:
        answer = post(client, messages=[{"role": "user", "content": "a"}])
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_knows_no_chats")
        assert client.get("/v1/models").json()["data"][0]["chat"] is False


def test_a_key_is_asked_for_where_there_is_one() -> None:
    with client_of(api_keys=("one", "two")) as client:
        given = [None, "Bearer three", "Basic two", "Bearer two"]
        found = [client.get("/v1/models", headers={"Authorization": key} if key else {}).status_code for key in given]
        assert (found, client.get("/health").status_code) == ([401, 401, 401, 200], 200)


def test_other_origins_are_let_in_only_where_told(client: TestClient) -> None:
    origin = {"Origin": "https://a.example"}
    assert "access-control-allow-origin" not in client.get("/health", headers=origin).headers
    with client_of(cors=("https://a.example",)) as open_client:
        assert open_client.get("/health", headers=origin).headers["access-control-allow-origin"] == origin["Origin"]


def test_a_full_queue_refuses_with_429() -> None:
    with client_of(max_queue=0) as client:
        slow = {"prompt": ["a"] * 4, "max_tokens": 1000, "logit_bias": {"256": -100, "260": -100}}
        thread = threading.Thread(target=lambda: post(client, **slow))
        thread.start()
        while "streams_active 4" not in client.get("/metrics").text:
            time.sleep(0.001)
        answer = post(client, prompt="a")
        thread.join()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


def test_an_answer_that_takes_too_long_is_ended() -> None:
    with client_of(request_seconds=0.3) as client:
        asked = {"prompt": "a", "max_tokens": 10**6, "logit_bias": {"256": -100, "260": -100}}
        assert post(client, **asked).status_code == 504
        assert "timeout" in post(client, **asked, stream=True).text
        deadline = time.monotonic() + 5
        while "streams_active 0" not in client.get("/metrics").text:
            assert time.monotonic() < deadline


def test_metrics_count_requests_and_tokens(client: TestClient) -> None:
    def read() -> dict[str, float]:
        text = client.get("/metrics").text
        return {name: float(value) for name, value in re.findall(r"^([^#\s]+) (\S+)$", text, re.MULTILINE)}

    before = read()
    drawn = post(client, prompt="abc", max_tokens=9).json()["usage"]["completion_tokens"]
    grown = {name: value - before.get(name, 0) for name, value in read().items()}
    assert grown['tinygpt_requests_total{route="/v1/completions",status="200"}'] == 1
    assert (grown["tinygpt_prompt_tokens_total"], grown["tinygpt_generated_tokens_total"]) == (3, drawn)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([10**400, "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    "prompt messages max_tokens n seed stop stream logprobs top_logprobs echo temperature top_p top_k min_p typical_p "
    "repetition_penalty presence_penalty frequency_penalty logit_bias user model stream_options tools best_of suffix"
)


@settings(deadline=None, max_examples=100)
@given(
    body=st.dictionaries(st.sampled_from(NAMES.split()), VALUES, max_size=4),
    path=st.sampled_from(["/v1/completions", "/v1/chat/completions"]),
    prompt=st.just("a") | VALUES,
)
def test_no_json_makes_the_server_fail(client: TestClient, body: dict[str, Any], path: str, prompt: Any) -> None:
    needed = {"prompt": prompt} if path == "/v1/completions" else {"messages": [{"role": "user", "content": prompt}]}
    limits = (
        {"max_tokens": 3} if not isinstance(body.get("max_tokens"), int) else {"max_tokens": min(body["max_tokens"], 9)}
    )
    content = json.dumps({**needed, **body, **limits})
    answer = client.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code < 500, (content, answer.text)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server in a process of its own."""
    folder = tmp_path_factory.mktemp("serve") / "tiny"
    checkpoint_of().save(folder)
    with serving(folder) as (address, _):
        yield address


def test_the_openai_client_works(served: str) -> None:
    api = openai.OpenAI(base_url=f"{served}/v1", api_key="any", max_retries=0)
    assert [model.id for model in api.models.list()] == ["tiny"]
    text = api.completions.create(model="tiny", prompt="Once", max_tokens=20, seed=3).choices[0].text
    assert text == said(text="Once", max_new_tokens=20, seed=3)
    asked: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "seed": 4}
    whole = api.chat.completions.create(**asked, max_tokens=20, extra_body={"top_k": 50})
    pieces = api.chat.completions.create(**asked, max_tokens=20, extra_body={"top_k": 50}, stream=True)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in pieces)
    assert (
        streamed == whole.choices[0].message.content == said(text="Hi", chat=True, max_new_tokens=20, seed=4, top_k=50)
    )
    with pytest.raises(openai.BadRequestError, match="tools is not supported"):
        api.chat.completions.create(**asked, tools=[{"type": "function", "function": {"name": "f"}}])


def test_a_client_that_leaves_frees_its_stream(served: str) -> None:
    asked = {"prompt": "a", "max_tokens": 10**6, "stream": True, "logit_bias": {"256": -100, "260": -100}}
    with httpx.stream("POST", f"{served}/v1/completions", json=asked) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert "tinygpt_streams_active 1" in httpx.get(f"{served}/metrics").text
    deadline = time.monotonic() + 5
    while "tinygpt_streams_active 0" not in httpx.get(f"{served}/metrics").text:
        assert time.monotonic() < deadline


def test_a_reader_that_takes_nothing_does_not_stop_others(served: str) -> None:
    body = json.dumps({"prompt": "a", "max_tokens": 10**6, "stream": True, "logit_bias": {"256": -100}}).encode()
    host, _, port = served.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as lazy:
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        lazy.sendall(f"{head}\r\n\r\n".encode() + body)
        for seed in range(20):
            answer = httpx.post(f"{served}/v1/completions", json={"prompt": "b", "seed": seed, "max_tokens": 5})
            assert answer.json()["choices"][0]["text"] == said(text="b", max_new_tokens=5, seed=seed)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_within_seconds_and_cuts_streams(tmp_path: Path, number: int, code: int) -> None:
    checkpoint_of().save(tmp_path / "tiny")
    with serving(tmp_path / "tiny") as (address, process):
        asked = {"prompt": "a", "max_tokens": 10**6, "stream": True, "logit_bias": {"256": -100, "260": -100}}
        with httpx.stream("POST", f"{address}/v1/completions", json=asked, timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(number)
            last = [line for line in lines if line][-1]
        assert (json.loads(last.removeprefix("data: "))["error"]["code"], process.wait(10)) == ("shutting_down", code)


def test_a_taken_port_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert serve.main(["--checkpoint", "nowhere", "--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"tinygpt serve: error: 127.0.0.1 port {port}: address already in use; --port takes another, 0 a free one\n"
    )


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("--host nowhere.invalid", "; give a name or address of this machine"),
        ("--host 8.8.8.8", "8.8.8.8 port 0: cannot assign requested address; --host takes an address of this machine"),
        (
            "--cors example.org",
            "--cors takes origins such as https://example.org, without a path, or *, got 'example.org'",
        ),
        ("--cors https://example.org/", "got 'https://example.org/'"),
        ("--arrival-seconds 0", "--arrival-seconds must be above 0 and below 1000000, got 0.0"),
    ],
)
def test_a_wrong_flag_is_one_line(words: str, found: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["--checkpoint", "nowhere", "--port", "0", *words.split()]) == 2
    shown = capsys.readouterr().err
    assert (shown.count("\n"), found in shown) == (1, True), shown


def test_a_wrong_path_and_method_say_what_there_is(client: TestClient) -> None:
    said = [client.get(path).json()["error"]["message"] for path in ("/v1/engines", "/v1/completions")]
    assert said[0].startswith("there is no /v1/engines; there are /, /health, /metrics, /v1/models, ")
    assert said[1] == "/v1/completions takes POST, got GET"


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint_of().save(tmp_path / "tiny")
    (tmp_path / "keys").write_text("# mine\nsecret\n")
    with serving(tmp_path / "tiny", "--api-key-file", str(tmp_path / "keys")) as (address, _):
        given = [
            httpx.get(f"{address}/v1/models", headers=h).status_code for h in ({}, {"Authorization": "Bearer secret"})
        ]
    (tmp_path / "keys").write_text("# none\n")
    words = ["--checkpoint", str(tmp_path / "tiny"), "--port", "0", "--api-key-file", str(tmp_path / "keys")]
    assert (given, serve.main(words)) == ([401, 200], 2)
    assert "no key in it; write one a line" in capsys.readouterr().err


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)""", answer.text) == []
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_reader_that_leaves_as_a_token_comes_is_gone() -> None:
    async def scenario() -> bool:
        found = checkpoint_of()
        how: dict[str, Any] = {"model_name": "tiny", "max_queue": 4, "request_seconds": 60.0, "precision": "float32"}
        service = Service(found, found.decoder(n_slots=2, dtype="float32", threads=1), **how)
        service.engine.close()  # so that no token comes but the one below
        answering = service.answering(completion({"prompt": "a", "max_tokens": 9}))
        reading = asyncio.ensure_future(answering.whole())
        await asyncio.sleep(0.05)
        answering.tell(Piece(index=0, text="b"))
        reading.cancel()
        await asyncio.wait({reading}, timeout=5)
        return reading.cancelled()

    assert asyncio.run(scenario())


def test_half_a_character_before_an_answer_moves_none_of_its_offsets() -> None:
    tokenizer = checkpoint_of().tokenizer
    assert tokenizer is not None
    prompt, answer = tuple(Token(id=i) for i in b"a\xc3"), tuple(Token(id=i) for i in "\u00e9b".encode())
    echoed = AnswerText(tokenizer, echoed="a\ufffd")
    _, judged = echoed.take(Piece(index=0, prompt=prompt))
    text, given = echoed.take(Piece(index=0, text="\u00e9b", tokens=answer, finish="length"))
    assert (text, [offset for _, offset, _ in [*judged, *given]]) == ("\u00e9b", [0, 1, 2, 2, 3])
