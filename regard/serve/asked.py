"""From the body of a request to what it asks for: OpenAI's completion and chat shapes, and regard's own fields."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import Any

from regard.serve.fields import BadRequest, Fields
from regard.serve.look import STATISTICS
from regard.serve.prompt import Prompt, Prompts
from regard.serve.request import Grammar, Look, Request, Sampling, Stopping

IGNORED = ("user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key")
MOST_TOP = 64
MOST_NUMBERS = 200_000


@dataclass(frozen=True)
class About:
    """What a server serves, as far as requests must know it. num_heads, num_layers: of its attention; longest:
    tokens of a sequence; longest_look: statistics' numbers that one row may ask for."""

    model: str
    vocabulary: int
    longest: int
    num_layers: int
    num_heads: int
    eos: frozenset[int]
    max_n: int = 64
    max_seconds: float = 600.0
    longest_look: int = MOST_NUMBERS


@dataclass(frozen=True)
class Asked:
    """One HTTP request: its prompts, and a Request for each. drops: no token is wanted, only the prompt's chances."""

    requests: list[Request]
    prompts: list[Prompt]
    stream: bool
    usage: bool
    echo: bool = False
    drops: bool = False
    tools: bool = False


def completion(fields: Fields, about: About, prompts: Prompts) -> Asked:
    """/v1/completions. Raises BadRequest, which names the field."""
    _common(fields, about)
    for name, allowed in (("suffix", ""), ("best_of", fields.any("n") or 1)):
        if fields.any(name, allowed) != allowed:
            raise fields.bad(name, "this server does not have it; leave it out")
    special = fields.flag("add_special_tokens", True)
    asked = _prompts(fields, prompts, special, about)
    echo = fields.flag("echo")
    logprobs = fields.whole("logprobs", None, 0, 20)
    of_prompt = fields.whole("prompt_logprobs", logprobs if echo else None, 0, 20)
    most = fields.whole("max_tokens", 16, 0, 1 << 30)
    assert most is not None
    if most == 0 and not echo:
        raise fields.bad("max_tokens", "0 tokens can only be asked for with echo=true")
    return _asked(fields, about, asked, max(1, most), logprobs, of_prompt, echo=echo, drops=most == 0)


def chat(fields: Fields, about: About, prompts: Prompts) -> Asked:
    """/v1/chat/completions. Raises BadRequest, which names the field."""
    _common(fields, about)
    tools = fields.any("tools")
    choice = fields.any("tool_choice", "auto")
    if choice not in ("auto", "none"):
        raise fields.bad("tool_choice", 'this server knows "auto" and "none"')
    extra = fields.any("chat_template_kwargs", {})
    if not isinstance(extra, dict):
        raise fields.bad("chat_template_kwargs", "an object is needed")
    use = tools if choice == "auto" else None
    prompt = prompts.chat(fields.any("messages"), use, extra)
    wanted = fields.flag("logprobs")
    top = fields.whole("top_logprobs", 0, 0, 20)
    if top and not wanted:
        raise fields.bad("top_logprobs", "needs logprobs=true")
    room = about.longest - len(prompt.tokens)
    most = fields.whole("max_completion_tokens", fields.whole("max_tokens", None, 1, 1 << 30), 1, 1 << 30)
    return _asked(fields, about, [prompt], max(1, room) if most is None else most, top if wanted else None, None,
                  tools=bool(use))  # fmt: skip


def _common(fields: Fields, about: About) -> None:
    for name in IGNORED:
        fields.any(name)
    model = fields.text("model")
    if model is not None and model != about.model:
        raise BadRequest(f"model: {model!r} is not served here, {about.model!r} is", "model", 404, "model_not_found")


def _prompts(fields: Fields, prompts: Prompts, special: bool, about: About) -> list[Prompt]:
    given = fields.any("prompt")
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list) or not given:
        raise fields.bad("prompt", "a text, a list of texts, or a list of token ids is needed")
    if all(isinstance(x, int) and not isinstance(x, bool) for x in given):
        given = [given]
    if len(given) > about.max_n:
        raise fields.bad("prompt", f"at most {about.max_n} prompts in one request, got {len(given)}")
    found = []
    for one in given:
        if isinstance(one, str):
            found.append(prompts.text(one, special))
        elif isinstance(one, list) and all(isinstance(x, int) and not isinstance(x, bool) for x in one):
            found.append(prompts.ids(one))
        else:
            raise fields.bad("prompt", "each prompt is a text or a list of token ids")
    return found


def _asked(
    fields: Fields,
    about: About,
    prompts: list[Prompt],
    max_tokens: int,
    logprobs: int | None,
    prompt_logprobs: int | None,
    echo: bool = False,
    drops: bool = False,
    tools: bool = False,
) -> Asked:
    n = fields.whole("n", 1, 1, about.max_n)
    assert n is not None
    if n * len(prompts) > about.max_n:
        raise fields.bad("n", f"{n} answers to {len(prompts)} prompts are more than {about.max_n}")
    stream = fields.flag("stream")
    options = fields.inner("stream_options")
    usage = False
    if options is not None:
        usage = options.flag("include_usage")
        options.flag("include_obfuscation")
        options.done()
    look = _look(fields, about)
    made = Request(
        id="",
        prompt=(),
        sampling=_sampling(fields, about),
        stopping=_stopping(fields, about, max_tokens),
        n=n,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        grammar=_grammar(fields),
        speculate=fields.whole("prompt_lookup", 0, 0, 16) or 0,
        priority=fields.whole("priority", 0, -100, 100) or 0,
        deadline=fields.number("timeout", about.max_seconds, 0.001, about.max_seconds),
        salt=_salt(fields),
    )
    fields.done()
    requests = []
    for prompt in prompts:
        if not prompt.tokens:
            raise BadRequest("prompt: it has no tokens; give at least one", "prompt")
        if len(prompt.tokens) + max_tokens > about.longest:
            raise BadRequest(
                f"max_tokens: {len(prompt.tokens)} prompt tokens and {max_tokens} new ones exceed the {about.longest} "
                "that this server holds per request",
                "max_tokens" if len(prompt.tokens) < about.longest else "prompt",
                code="context_length_exceeded",
            )
        spans = prompt.spans or ((0, len(prompt.tokens)),)
        own = None if look is None else replace(look, spans=spans)
        requests.append(replace(made, id=os.urandom(12).hex(), prompt=tuple(prompt.tokens), look=own))
    return Asked(requests, prompts, stream, usage, echo, drops, tools)


def _sampling(fields: Fields, about: About) -> Sampling:
    return Sampling(
        temperature=fields.number("temperature", 1.0, 0.0, 100.0),
        top_k=max(0, fields.whole("top_k", 0, -1, 1 << 30) or 0),
        top_p=_above_zero(fields, "top_p", fields.number("top_p", 1.0, 0.0, 1.0)),
        min_p=fields.number("min_p", 0.0, 0.0, 1.0),
        repetition_penalty=_above_zero(
            fields, "repetition_penalty", fields.number("repetition_penalty", 1.0, 0.0, 100.0)
        ),
        presence_penalty=fields.number("presence_penalty", 0.0, -2.0, 2.0),
        frequency_penalty=fields.number("frequency_penalty", 0.0, -2.0, 2.0),
        logit_bias=_bias(fields, about),
        seed=fields.whole("seed", None, -(1 << 63), (1 << 63) - 1),
    )


def _above_zero(fields: Fields, name: str, value: float) -> float:
    if value <= 0.0:
        raise fields.bad(name, "must be above 0, got 0")
    return value


def _bias(fields: Fields, about: About) -> tuple[tuple[int, float], ...]:
    given = fields.any("logit_bias", {})
    if not isinstance(given, dict) or len(given) > 1024:
        raise fields.bad("logit_bias", "an object of at most 1024 token ids and numbers is needed")
    found = []
    for token, value in given.items():
        if not token.isdecimal() or not token.isascii() or int(token) >= about.vocabulary:
            raise fields.bad("logit_bias", f"{token[:20]!r} is no token id below {about.vocabulary}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not -100 <= value <= 100:
            raise fields.bad("logit_bias", f"token {token[:20]} has no number in -100 … 100")
        found.append((int(token), float(value)))
    return tuple(found)


def _stopping(fields: Fields, about: About, max_tokens: int) -> Stopping:
    ids = fields.wholes("stop_token_ids", 0, about.vocabulary - 1, 64) or ()
    ends = frozenset() if fields.flag("ignore_eos") else about.eos
    least = fields.whole("min_tokens", 0, 0, max_tokens) or 0
    strings = fields.strings("stop", 16)
    return Stopping(max_tokens, least, ends | frozenset(ids), strings, fields.flag("include_stop_str_in_output"))


def _salt(fields: Fields) -> bytes:
    return (fields.text("cache_salt") or "").encode()[:64]


def _grammar(fields: Fields) -> Grammar | None:
    regex, lark = fields.text("regex"), fields.text("grammar")
    form = fields.inner("response_format")
    found = []
    if regex is not None:
        found.append(Grammar("regex", regex))
    if lark is not None:
        found.append(Grammar("lark", lark))
    if form is not None:
        kind = form.text("type")
        schema = form.inner("json_schema")
        if kind == "json_object":
            found.append(Grammar("json_schema", '{"type": "object"}'))
        elif kind == "json_schema" and schema is not None:
            inner = schema.any("schema", {"type": "object"})
            found.append(Grammar("json_schema", json.dumps(inner)))
        elif kind != "text":
            raise form.bad("type", 'must be "text", "json_object", or "json_schema" with a json_schema')
        form.done()
    if len(found) > 1:
        raise fields.bad("response_format", "only one of response_format, regex and grammar can hold")
    return found[0] if found else None


def _look(fields: Fields, about: About) -> Look | None:
    if fields.any("attention") is True:
        return Look(("top", "entropy", "sink"))
    if fields.any("attention") is False:
        return None
    asked = fields.inner("attention")
    if asked is None:
        return None
    statistics = asked.strings("statistics", len(STATISTICS)) or ("top", "entropy", "sink")
    unknown = next((name for name in statistics if name not in STATISTICS), None)
    if unknown is not None:
        raise asked.bad("statistics", f"{unknown[:30]!r} is none of {', '.join(STATISTICS)}")
    layers = asked.wholes("layers", 0, about.num_layers - 1, about.num_layers)
    heads: Any = asked.any("heads", "mean")
    if heads not in ("mean", "all"):
        if isinstance(heads, str):
            raise asked.bad("heads", f'must be "mean", "all" or a list of heads below {about.num_heads}')
        heads = asked.wholes("heads", 0, about.num_heads - 1, about.num_heads)
    if layers == () or heads == ():
        raise asked.bad("layers" if layers == () else "heads", "the list is empty; leave it out for all")
    if any(x is not None and not isinstance(x, str) and len(set(x)) < len(x) for x in (layers, heads)):
        raise asked.bad("layers", "layers and heads name each index once")
    top_k = asked.whole("top_k", 8, 1, MOST_TOP) or 8
    sinks = asked.whole("sinks", 4, 1, 1024) or 4
    look = Look(statistics, layers, heads, top_k, sinks, asked.flag("prompt"))
    asked.done()
    numbers = _numbers(look, about)
    if numbers > about.longest_look:
        raise asked.bad(
            "top_k",
            f"{numbers} numbers for each token are more than {about.longest_look}; ask for fewer layers or heads",
        )
    return look


def _numbers(look: Look, about: About) -> int:
    heads = {"mean": 1, "all": about.num_heads}.get(look.heads) if isinstance(look.heads, str) else len(look.heads)
    layers = about.num_layers if look.layers is None else len(look.layers)
    return layers * (heads or 1) * (2 * look.top_k + len(look.statistics))
