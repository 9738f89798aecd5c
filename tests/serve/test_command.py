"""The verb as a process: what it says, what it refuses, that its port comes back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
import torch
import transformers as tf

from regard.errors import UserError
from regard.serve.command import read_memory
from regard.serve.runner import Runner
from tests.hf.models import small


def started(*words: str) -> tuple[subprocess.Popen[str], str]:
    """The server and its first line."""
    program = "from regard.cli import main; main()"
    server = subprocess.Popen(
        [sys.executable, "-c", program, "serve", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    return server, server.stdout.readline()


def test_it_serves_the_embedded_model_survives_a_kill_and_stops_on_a_signal() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for ending in (signal.SIGKILL, signal.SIGTERM):
        server, line = started("--port", str(port), "--memory", "20MiB")
        try:
            assert "http://127.0.0.1:" in line and "--memory says" in line, server.stderr and server.stderr.read()
            until = time.monotonic() + 30
            while True:
                try:
                    body = {"prompt": "The", "max_tokens": 3}
                    answer = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=30)
                    break
                except httpx.ConnectError:
                    assert time.monotonic() < until
                    time.sleep(0.05)
            assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == 3
        finally:
            os.kill(server.pid, ending)
            server.communicate(timeout=30)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--memory", "lots"], '--memory "lots": say how much as 2GiB or 500MiB'),
        (["--memory", "20KiB"], "give --memory more"),
        (["/no/such/model"], "there is no directory /no/such/model"),
        (["--page-dtype", "int4"], "--page-dtype int4"),
        (["--chat-template", "/no/such/file"], "--chat-template /no/such/file: there is no such file"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], said: str) -> None:
    server, line = started("--port", "0", *words)
    _, error = server.communicate(timeout=120)
    assert (server.returncode, line) == (2, "") and said in error and len(error.strip().splitlines()) == 1


def test_memory_is_read_in_units() -> None:
    assert [read_memory(x) for x in ("2GiB", "500 MiB", "1.5", "3gb")] == [2 << 30, 500 << 20, 3 << 29, 3 * 10**9]
    with pytest.raises(UserError, match="--memory"):
        read_memory("-1")


REFUSED = [
    ("bert", lambda: tf.BertModel(tf.BertConfig(**small())), "not a causal language model"),
    ("bloom", lambda: tf.BloomForCausalLM(tf.BloomConfig(vocab_size=99, hidden_size=32, n_layer=2, n_head=4)), "Bloom"),
    (
        "mamba",
        lambda: tf.MambaForCausalLM(tf.MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, state_size=4)),
        "Mamba",
    ),
]


@pytest.mark.parametrize(("name", "make", "said"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_a_model_that_cannot_be_served_is_refused_by_name(name: str, make: object, said: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(UserError, match=said):
        Runner(make().eval())  # type: ignore[operator]


def test_positions_that_depend_on_the_batch_are_kept_within_what_they_were_made_for() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0, "original_max_position_embeddings": 64}
    config = tf.LlamaConfig(**small(num_key_value_heads=2, rope_parameters=rope))
    assert Runner(tf.LlamaForCausalLM(config).eval()).max_length == 64
