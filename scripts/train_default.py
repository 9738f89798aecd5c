"""Train regard's default model from public-domain texts: tokenizer, Llama weights and model card.

    python scripts/train_default.py TEXT [TEXT...] --out regard/default --minutes 60 --seed 0 --threads 1
    python scripts/train_default.py TEXT [TEXT...] --out regard/default --census

TEXT is a .txt or .txt.gz file. The first form trains and writes the model directory; the second measures the heads of
the model that is there. Everything but the number of steps follows from the seed: --minutes chooses that number by
timing a few steps and prints it, and --steps fixes it. A run that was interrupted goes on from its last checkpoint.
"""

import argparse
import gzip
import json
import math
import os
import random
import re
import shutil
import tempfile
import time
import unicodedata
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
SPECIALS = [BOS, EOS, PAD]
SHORT, LONG = 256, 2048
PIECE = 2048
LONG_FROM = 0.75
HELD_OUT = 0.05
FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
SENTENCE = "A fluffy blue creature roamed the verdant forest."
TITLES = {
    "war_and_peace": "*War and Peace* by Leo Tolstoy, translated by Louise and Aylmer Maude",
    "tinyshakespeare": "*tiny Shakespeare*: 40,000 lines from the plays of William Shakespeare",
}
TYPOGRAPHY = str.maketrans(
    {"“": '"', "”": '"', "‘": "'", "’": "'", "—": "--", "–": "-", "…": "...", "œ": "oe", "æ": "ae"}
)


# --- texts ------------------------------------------------------------------------------------------------------------


@dataclass
class Text:
    """One source text, cut into a training part and a held-out end."""

    name: str
    train: str
    held: str


def strip_licence(text: str) -> str:
    """Drop what Project Gutenberg puts before and after a book; other texts pass unchanged."""
    text = re.split(r"\*\*\* ?START OF TH[^\n]*\*\*\*\n", text, maxsplit=1)[-1]
    return re.split(r"\n(?:End of (?:the )?Project Gutenberg|\*\*\* ?END OF TH)", text, maxsplit=1)[0]


def strip_contents(text: str) -> str:
    """Drop a table of contents: everything before the last run of at least four headings in a row."""
    heading = r"(?:BOOK|CHAPTER|PART|FIRST|SECOND)\b[^\n]{0,60}\n+"
    ends = [m.end() for m in re.finditer(rf"(?:{heading}){{4,}}", text)]
    return text[ends[-1] :] if ends else text


def plain(text: str) -> str:
    """Straight quotes, ASCII dashes, letters without accents, at most one empty line in a row."""
    text = unicodedata.normalize("NFKD", text.replace("\r\n", "\n").translate(TYPOGRAPHY))
    text = "".join(c for c in text if not unicodedata.combining(c))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip() + "\n"


def read_text(path: Path) -> Text:
    """Read, clean and cut one text; its last part (HELD_OUT) is never trained on."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = plain(strip_contents(strip_licence(raw.decode("utf-8-sig"))))
    cut = text.rindex("\n", 0, int(len(text) * (1 - HELD_OUT))) + 1
    return Text(path.name.split(".")[0], text[:cut], text[cut:])


# --- tokenizer --------------------------------------------------------------------------------------------------------


def train_tokenizer(texts: list[str], vocab: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts BOS in front of what it encodes."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, core.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=LONG,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The tokens of a text, without special tokens."""
    return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


# --- batches ----------------------------------------------------------------------------------------------------------


@dataclass
class Batches:
    """Training batches; batch number s depends on the seed and s alone, so a resumed run sees the same ones."""

    streams: list[list[int]]
    newline: int
    vocab: int
    seed: int
    tokens: int = 4096
    passages: float = 0.08
    randoms: float = 0.12
    starts: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.starts = [
            [i + 1 for i, t in enumerate(s) if t == self.newline and s[i + 1 : i + 2] != [t] and i + LONG + 3 < len(s)]
            for s in self.streams
        ]

    def window(self, rng: random.Random, n: int) -> list[int]:
        """n tokens in a row; half of the windows begin where a line begins."""
        k = rng.choices(range(len(self.streams)), weights=[len(s) for s in self.streams])[0]
        start = rng.choice(self.starts[k]) if rng.random() < 0.5 else rng.randrange(len(self.streams[k]) - n)
        return self.streams[k][start : start + n]

    def text_row(self, rng: random.Random, n: int) -> tuple[list[int], int]:
        """Plain text."""
        return self.window(rng, n), 0

    def passage_row(self, rng: random.Random, n: int) -> tuple[list[int], int]:
        """Text in which one passage comes a second time, some way after the first."""
        text = self.window(rng, n)
        size = rng.randint(16, n // 3)
        first = rng.randint(0, n - 2 * size)
        again = rng.randint(first + size, n - size)
        return (text[:again] + text[first : first + size] + text[again:])[:n], 0

    def random_row(self, rng: random.Random, n: int) -> tuple[list[int], int]:
        """Random tokens repeated to the end, half of the time after some text; the first copy bears no loss."""
        lead = self.window(rng, rng.randint(1, n // 2)) if rng.random() < 0.5 else []
        size = rng.randint(8, (n - len(lead)) // 2)
        segment = [rng.randrange(len(SPECIALS), self.vocab) for _ in range(size)]
        row = lead + segment * (n // size + 1)
        return row[:n], len(lead) + size + 1

    def batch(self, step: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of one step, each [rows, length]; targets without loss are -100."""
        rng = random.Random(f"{self.seed}/{step}")
        x, y = [], []
        for _ in range(self.tokens // length):
            kind = rng.random()
            make = self.text_row
            if kind < self.randoms:
                make = self.random_row
            elif kind < self.randoms + self.passages:
                make = self.passage_row
            row, silent = make(rng, length)
            x.append([0, *row[:-1]])
            y.append([-100] * silent + row[silent:])
        return torch.tensor(x), torch.tensor(y)


def length_at(step: int, steps: int, seed: int) -> int:
    """Short rows first; from LONG_FROM of the run on, every second batch (by chance) has long rows."""
    late = step >= LONG_FROM * steps
    return LONG if late and random.Random(f"{seed}/length/{step}").random() < 0.5 else SHORT


# --- model and optimizer ----------------------------------------------------------------------------------------------


def build_model(vocab: int, args: argparse.Namespace) -> LlamaForCausalLM:
    """A Llama of about two million parameters, in Hugging Face format."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=32,
        max_position_embeddings=LONG,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    torch.manual_seed(args.seed)
    model = LlamaForCausalLM(config)
    prime(model)
    return model


@torch.no_grad()
def prime(model: LlamaForCausalLM) -> None:
    """Give heads 0.0 and 1.0 a start; without it no induction head forms within so few tokens.

    Every embedding gets the same value in its first place. Head 0.0 reads nothing else for its queries and keys, turned
    so that rotary positions make the token before the best match; it copies that token into directions of its own
    (`then`). Head 1.0 compares the token at the query (`now`) with what head 0.0 wrote, and copies what it finds.
    Training changes all of this like any other weight.
    """
    model.model.embed_tokens.weight.mul_(2.0)[:, 0] = 1.5
    size, half = model.config.head_dim, model.config.head_dim // 2
    basis = torch.linalg.qr(torch.randn(model.config.hidden_size - 1, model.config.hidden_size - 1)).Q
    now, then, copied = F.pad(basis, (1, 0))[: 3 * size].split(size)
    previous, induction = (model.model.layers[i].self_attn for i in (0, 1))
    turn = model.config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    previous.q_proj.weight[:size] = 0.0
    previous.k_proj.weight[:size] = 0.0
    previous.q_proj.weight[:size, 0] = 0.85 * torch.cat([turn.cos(), -turn.sin()])
    previous.k_proj.weight[:half, 0] = 0.85
    previous.v_proj.weight[:size] = 0.5 * now
    previous.o_proj.weight[:, :size] = 0.5 * then.T
    induction.q_proj.weight[:size] = 2.2 * now
    induction.k_proj.weight[:size] = 2.2 * then
    induction.v_proj.weight[:size] = 0.35 * copied
    induction.o_proj.weight[:, :size] = 0.35 * copied.T


def orthogonal(g: torch.Tensor) -> torch.Tensor:
    """Roughly the nearest semi-orthogonal matrix to a wide matrix, by five Newton-Schulz iterations."""
    x = g / (g.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = torch.addmm(x, torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x


class Muon(torch.optim.Optimizer):
    """Muon in float32; torch.optim.Muon works in bfloat16, which is slow on a plain CPU."""

    def __init__(self, params: list[torch.Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.1):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """One step; its size is that of AdamW's (root mean square 0.2), so the two can share a learning rate."""
        for group in self.param_groups:
            for p in group["params"]:
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                average.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(average, group["momentum"])
                tall = len(p) > p.shape[1]
                update = orthogonal(update.mT).mT if tall else orthogonal(update)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * math.sqrt(max(p.shape)) * group["lr"])


def build_optimizers(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    embedding = [p for n, p in model.named_parameters() if "embed" in n]
    norms = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": embedding, "weight_decay": 0.05}, {"params": norms, "weight_decay": 0.0}]
    return [Muon(matrices, lr=lr), torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)]


def rate_at(step: int, steps: int) -> float:
    """Share of the peak learning rate: short warm-up, a level stretch, then straight down to (almost) zero."""
    warm = max(1, min(100, steps // 10))
    return min((step + 1) / warm, 1.0, (steps - step) / (0.6 * steps))


def loss_of(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy in nats per token."""
    return F.cross_entropy(model(x, use_cache=False).logits.flatten(0, 1), y.flatten())


def backward(loss, model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Gradients of one batch, taken in pieces of PIECE tokens that the caches can hold; returns the mean loss."""
    rows = max(1, PIECE // x.shape[1])
    total = 0.0
    for part_x, part_y in zip(x.split(rows), y.split(rows), strict=True):
        part = loss(model, part_x, part_y) * ((part_y >= 0).sum() / (y >= 0).sum())
        part.backward()
        total += part.item()
    return total


# --- training ---------------------------------------------------------------------------------------------------------


def write_atomically(path: Path, save) -> None:
    """Let `save` write a file beside `path`, then move it into place."""
    beside = path.with_name(path.name + ".part")
    save(beside)
    os.replace(beside, path)


@dataclass
class State:
    """How far a run has come."""

    steps: int
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = 0.0


def count_steps(loss, model: torch.nn.Module, batches: Batches, minutes: float) -> int:
    """The steps that fit into so many minutes, by timing passes that change nothing."""
    since = time.monotonic()
    seconds = {}
    for length in (SHORT, LONG):
        for _ in range(4):
            start = time.monotonic()
            backward(loss, model, *batches.batch(0, length))
            model.zero_grad()
            seconds[length] = time.monotonic() - start
    long_share = (1 - LONG_FROM) / 2
    each = seconds[SHORT] * (1 - long_share) + seconds[LONG] * long_share
    return int((minutes * 60 - (time.monotonic() - since)) / (1.15 * each))


def save(path: Path, about: str, state: State, model: torch.nn.Module, optimizers: list) -> None:
    """Write a checkpoint."""
    parts = {
        "about": about,
        "state": asdict(state),
        "model": model.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
    }
    write_atomically(path, lambda beside: torch.save(parts, beside))


def restore(path: Path, about: str, model: torch.nn.Module, optimizers: list) -> State:
    """Read a checkpoint, which must come from a run of the same kind."""
    parts = torch.load(path, weights_only=True)
    if parts["about"] != about:
        raise SystemExit(f"{path} is from another run ({parts['about']}): remove it or name another --work")
    model.load_state_dict(parts["model"])
    for optimizer, saved in zip(optimizers, parts["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return State(**parts["state"])


def take_step(loss, model, optimizers: list[torch.optim.Optimizer], batches: Batches, state: State, lr: float) -> None:
    """One step of training; brings `state` up to date."""
    start = time.monotonic()
    x, y = batches.batch(state.step, length_at(state.step, state.steps, batches.seed))
    value = backward(loss, model, x, y)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * rate_at(state.step, state.steps)
        optimizer.step()
    model.zero_grad()
    state.step += 1
    state.tokens += x.numel()
    state.seconds += time.monotonic() - start
    state.loss += max(0.02, 1 / state.step) * (value - state.loss)


def train(model: LlamaForCausalLM, batches: Batches, held: list[int], args: argparse.Namespace) -> State:
    """Train to the end, from a checkpoint if there is one."""
    optimizers = build_optimizers(model, args.lr)
    loss = torch.compile(loss_of, dynamic=False) if args.compile else loss_of
    checkpoint = args.work / "checkpoint.pt"
    names = ", ".join(path.name for path in args.texts)
    about = f"seed {args.seed}, learning rate {args.lr}, vocabulary {args.vocab}, texts {names}"
    if checkpoint.exists():
        state = restore(checkpoint, about, model, optimizers)
        print(f"going on after step {state.step}")
    else:
        state = State(args.steps or count_steps(loss, model, batches, args.minutes))
    print(f"{state.steps} steps (--steps {state.steps} repeats this run)", flush=True)
    shown, saved, before = time.monotonic(), time.monotonic(), state.tokens
    while state.step < state.steps:
        take_step(loss, model, optimizers, batches, state, args.lr)
        now, last = time.monotonic(), state.step == state.steps
        if now - shown > 20 or last:
            speed = (state.tokens - before) / (now - shown)
            shown, before = now, state.tokens
            print(f"step {state.step}/{state.steps}  loss {state.loss:.3f}  {speed:.0f} tokens/s", flush=True)
        if now - saved > 120 or last:
            save(checkpoint, about, state, model, optimizers)
            nats, count = text_loss(model, held, SHORT, 10_000)
            print(f"step {state.step}/{state.steps}  saved  held-out loss {nats / count:.3f}", flush=True)
            saved = shown = time.monotonic()
    return state


@torch.no_grad()
def text_loss(model: LlamaForCausalLM, ids: list[int], length: int, limit: int = 40_000) -> tuple[float, int]:
    """Nats summed over the first `limit` tokens, in windows that follow BOS, and how many tokens that were."""
    total, count, ids = 0.0, 0, ids[:limit]
    for start in range(0, len(ids), length - 1):
        row = torch.tensor([ids[start : start + length - 1]])
        x = F.pad(row, (1, 0), value=0)[:, :-1]
        total += loss_of(model, x, row).item() * row.numel()
        count += row.numel()
    return total, count


# --- what the heads do ------------------------------------------------------------------------------------------------


@torch.no_grad()
def attention_of(model: LlamaForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    """Attention weights [layer, row, head, query, key]."""
    return torch.stack(model(rows, output_attentions=True, use_cache=False).attentions)


def census(model: LlamaForCausalLM, text: list[int], copy: int = 50, rows: int = 16, seed: int = 1) -> list[dict]:
    """Scores of every head.

    previous: mean of a[i, i-1] over rows i >= 1 of ordinary text (windows of 128 tokens, the first of them BOS).
    sink: mean of a[i, 0] over rows i >= 2 of the same text.
    induction: on BOS X X, X being `copy` random tokens, mean of a[i, i-(copy-1)] over the second copy.
    """
    model.set_attn_implementation("eager")
    model.eval()
    gap = (len(text) - 127) // rows
    words = torch.tensor([[0, *text[r * gap : r * gap + 127]] for r in range(rows)])
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(len(SPECIALS), model.config.vocab_size, (rows, copy), generator=generator)
    on_text = attention_of(model, words)
    on_copies = attention_of(model, torch.cat([torch.zeros(rows, 1, dtype=torch.long), x, x], dim=1))
    model.set_attn_implementation("sdpa")
    previous = on_text.diagonal(-1, -2, -1).mean((1, 3))
    sink = on_text[..., 2:, 0].mean((1, 3))
    induction = on_copies.diagonal(-(copy - 1), -2, -1)[..., 2:].mean((1, 3))
    layers, heads = previous.shape
    return [
        {
            "head": f"{a}.{b}",
            "previous": previous[a, b].item(),
            "induction": induction[a, b].item(),
            "sink": sink[a, b].item(),
        }
        for a in range(layers)
        for b in range(heads)
    ]


def kind_of(score: dict) -> str:
    """A word for what a head mostly does."""
    if score["previous"] >= 0.5:
        return "previous token"
    if score["induction"] >= 0.4:
        return "induction"
    return "rests on BOS" if score["sink"] >= 0.5 else "mixed"


def head_table(scores: list[dict]) -> str:
    """The census as a Markdown table."""
    lines = ["| head | previous token | induction | mass on BOS | mostly |", "| --- | --- | --- | --- | --- |"]
    for s in scores:
        lines.append(f"| {s['head']} | {s['previous']:.2f} | {s['induction']:.2f} | {s['sink']:.2f} | {kind_of(s)} |")
    return "\n".join(lines)


# --- the model directory ----------------------------------------------------------------------------------------------


@torch.no_grad()
def write_on(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, **options) -> str:
    """The prompt and 80 tokens that the model puts after it."""
    torch.manual_seed(0)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, **options)
    return tokenizer.decode(out[0], skip_special_tokens=True)


def measure(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[Text]) -> dict:
    """Losses, heads and samples of a trained model."""
    model.eval()
    losses = {}
    for part, length in (("train", SHORT), ("held", SHORT), ("held", LONG)):
        sums = []
        for text in texts:
            ids = encode(tokenizer, getattr(text, part))
            nats, count = text_loss(model, ids, length)
            size = len(tokenizer.decode(ids[:count]).encode())
            sums.append((nats, count, size))
            losses[f"{part}/{length}/{text.name}"] = [nats / count, nats / math.log(2) / size]
        nats, count, size = (sum(s) for s in zip(*sums, strict=True))
        losses[f"{part}/{length}"] = [nats / count, nats / math.log(2) / size]
    held = [t for text in texts for t in encode(tokenizer, text.held)]
    prompt = "Prince Andrew looked at"
    return {
        "losses": losses,
        "heads": census(model, held),
        "sentence": tokenizer.convert_ids_to_tokens(tokenizer(SENTENCE).input_ids),
        "greedy": write_on(model, tokenizer, prompt, do_sample=False),
        "sampled": write_on(model, tokenizer, prompt, do_sample=True, temperature=0.8, top_p=0.95, top_k=0),
        "play": write_on(model, tokenizer, "ROMEO:\n", do_sample=True, temperature=0.8, top_p=0.95, top_k=0),
    }


def loss_table(facts: dict, texts: list[Text]) -> str:
    """Losses as a Markdown table: per text and over all."""
    rows = ["| text | training part | held-out part | held out, rows of 2,048 |", "| --- | --- | --- | --- |"]
    for label, key in [*((TITLES.get(t.name, t.name), f"/{t.name}") for t in texts), ("all", "")]:
        cells = [facts["losses"][f"{part}{key}"] for part in (f"train/{SHORT}", f"held/{SHORT}", f"held/{LONG}")]
        rows.append(f"| {label} | " + " | ".join(f"{nats:.3f} ({bits:.3f})" for nats, bits in cells) + " |")
    return "\n".join(rows)


def claims(scores: list[dict]) -> str:
    """What the card may say about the clearest heads."""
    previous, induction = (max(scores, key=lambda s: s[k]) for k in ("previous", "induction"))
    one, other = f"{previous['previous']:.2f}", f"{induction['induction']:.2f}"
    return (
        f"Heads are named layer.head, counted from 0. The clearest previous-token head is {previous['head']} "
        f"(score {one} of 1),\nthe clearest induction head {induction['head']} ({other})."
    )


def quote(text: str) -> str:
    """A Markdown block that keeps the text's lines."""
    return f"```text\n{text.strip()}\n```"


def card(facts: dict, texts: list[Text]) -> str:
    """The model card."""
    run = facts["run"]
    sizes = "\n".join(
        f"- {TITLES.get(t.name, t.name)}: {len(t.train):,} characters to train on, {len(t.held):,} held out"
        for t in texts
    )
    note = f", with one difference: {run['note']}" if run.get("note") else ""
    losses = facts["losses"]
    worse = (
        f"\nIt predicts worse in long contexts than in short ones: few of its training rows were longer than {SHORT}.\n"
    )
    worse = worse if losses[f"held/{LONG}"][0] > losses[f"held/{SHORT}"][0] else ""
    pieces = " ".join(f"`{p}`" for p in facts["sentence"])
    return f"""---
language: en
license: mit
pipeline_tag: text-generation
---

# regard's default model

A small Llama language model ({run["parameters"]:,} parameters, stored as float16, run in float32) that
comes with regard, so that there is something to look at and to serve without a download. It is small
on purpose and knows two books: it writes English that looks like a nineteenth-century novel or like a
play, spells and punctuates well, and makes little sense beyond a
sentence. It is not fit for any use in which what it says matters.

{claims(facts["heads"])}

## Data

{sizes}

Both are in the public domain. Header, licence and table of contents of the electronic editions were removed,
typographic quotes and dashes replaced by ASCII ones, and accents dropped. Case, punctuation and line breaks were kept.
The last {HELD_OUT:.0%} of each text were held out.

## Tokenizer

Byte-level BPE, trained on the training parts: {run["vocab"]:,} tokens, of which `{BOS}` (put before every text that is
encoded), `{EOS}` and `{PAD}` are special. Any text can be encoded; there is no unknown token. The texts never contain
`{EOS}`, so the model does not stop by itself: limit the number of new tokens. Example:

{pieces}

## Architecture

`LlamaForCausalLM`: 4 layers, hidden size 192, 6 query heads and 3 key-value heads of 32 dimensions each, SwiGLU
of 512, rotary positions (base 10,000), tied embeddings, up to 2,048 positions.

## Training

- {run["steps"]:,} steps of {run["batch"]:,} tokens: {run["tokens"]:,} tokens seen, {run["epochs"]:.1f} times the
  number of tokens in the training text ({run["corpus"]:,}).
- Muon for the matrices of the layers, AdamW for the embedding and the norms; peak learning rate {run["lr"]}, falling
  in a straight line to zero over the last 60 % of the steps; seed {run["seed"]}.
- Rows of 256 tokens; in the last quarter of the steps half of the batches have rows of 2,048 tokens.
- {run["passages"]:.0%} of the rows are text in which a passage comes a second time, and {run["randoms"]:.0%} contain a
  segment of random tokens again and again (its first copy bears no loss). Such rows give induction heads something
  to do.
- Two heads were given a start instead of random weights: 0.0 as a previous-token head and 1.0 as an induction head
  that builds on it (`prime` in the training script says how). Training then changed them like all others. This is
  not how such heads come about in large models. A run of 2.3 million tokens from a random start, otherwise much the
  same, had no such heads (best scores: previous token 0.42, induction 0.02); a longer one was not tried.
- {run["seconds"] / 60:.0f} minutes of wall time on a two-core x86-64 CPU, one thread at the lowest priority.
- `scripts/train_default.py` is the whole recipe; its `--steps {run["steps"]}` gives this run's schedule{note}.

## Loss

Nats per token (bits per byte), in rows of 256 tokens unless said otherwise. The smoothed loss of the last training
steps, over the mixed batches, was {run["loss"]:.3f}. At most the first 40,000 tokens of each
part of each text are measured.

{loss_table(facts, texts)}
{worse}
## What the heads do

Previous token: mean of a[i, i-1] over rows i ≥ 1 of held-out text (16 windows of 128 tokens, the first being `{BOS}`).
Mass on BOS: mean of a[i, 0] over rows i ≥ 2 of the same text. Induction: on `{BOS} X X`, X being 50 random tokens,
mean of a[i, i-49] over the second copy (16 draws). `--census` of the training script measures them again.

{head_table(facts["heads"])}

## Samples

Greedy:

{quote(facts["greedy"])}

Sampled (temperature 0.8, top-p 0.95, seed 0):

{quote(facts["sampled"])}

A play, sampled likewise:

{quote(facts["play"])}
"""


def store_as_half(weights: Path) -> None:
    """Keep the file's weights as float16, half the size; config.json says float32, so they are loaded as float32."""
    with safe_open(weights, framework="pt") as file:
        tensors = {name: file.get_tensor(name).half() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    save_file(tensors, weights, metadata={"format": "pt"})


def publish(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, readme: str, out: Path) -> None:
    """Write the whole model directory beside `out` and move the files in one by one."""
    out.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=out.parent, prefix=".default-"))
    model.save_pretrained(beside)
    store_as_half(beside / "model.safetensors")
    tokenizer.save_pretrained(beside)
    (beside / "README.md").write_text(readme, encoding="utf-8")
    for name in [*FILES, "README.md"]:
        (beside / name).chmod(0o644)
        os.replace(beside / name, out / name)
    shutil.rmtree(beside)
    print(f"{out}: {sum(f.stat().st_size for f in out.iterdir()):,} bytes")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", type=Path, metavar="TEXT")
    parser.add_argument("--out", type=Path, default=Path("regard/default"))
    parser.add_argument("--work", type=Path, default=Path("out/default"), help="where checkpoints go")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=0, help="number of steps; 0 takes it from --minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lr", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--note", default="", help="what the card should add about the schedule of this run")
    parser.add_argument("--compile", action="store_true", help="use torch.compile: faster after two minutes")
    parser.add_argument("--census", action="store_true", help="only measure the heads of the model in --out")
    return parser.parse_args()


def main() -> None:
    """Train, measure and write the model; or measure only."""
    args = arguments()
    torch.set_num_threads(args.threads)
    texts = [read_text(path) for path in args.texts]
    if args.census:
        tokenizer = AutoTokenizer.from_pretrained(args.out)
        held = [t for text in texts for t in encode(tokenizer, text.held)]
        print(head_table(census(LlamaForCausalLM.from_pretrained(args.out), held)))
        return
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer([t.train for t in texts], args.vocab)
    streams = [encode(tokenizer, t.train) for t in texts]
    batches = Batches(streams, tokenizer.convert_tokens_to_ids("Ċ"), len(tokenizer), args.seed)
    print(f"{len(tokenizer)} tokens in the vocabulary, {sum(map(len, streams)):,} in the training texts", flush=True)
    model = build_model(len(tokenizer), args)
    held = [t for text in texts for t in encode(tokenizer, text.held)[:5_000]]
    run = asdict(train(model, batches, held, args)) | {"batch": batches.tokens, "lr": args.lr, "seed": args.seed}
    run |= {"passages": batches.passages, "randoms": batches.randoms, "vocab": len(tokenizer)}
    corpus = sum(map(len, streams))
    run |= {"parameters": model.num_parameters(), "corpus": corpus, "epochs": run["tokens"] / corpus, "note": args.note}
    facts = {"run": run} | measure(model, tokenizer, texts)
    text = json.dumps(facts, indent=1)
    write_atomically(args.work / "facts.json", lambda path: path.write_text(text, encoding="utf-8"))
    publish(model, tokenizer, card(facts, texts), args.out)
    print(head_table(facts["heads"]))


if __name__ == "__main__":
    main()
