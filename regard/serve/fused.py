"""A whole step of a model of Llama's form in few native calls: three per layer, each over all rows.

A model is taken when it is exactly what its family's code makes (classes known one by one, nothing hooked in), so
that what is computed here is what its own code computes: norms, joined q k v, rotary positions by the model's own
module, attention in pages, gated feed-forward. Any other model runs its own code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from regard.core.layout import Paged
from regard.run.native import decode
from regard.run.native.compiled import Compiled, compiled
from regard.run.native.extension import extension
from regard.run.native.linear import PackedLinear, gated
from regard.run.native.views import Views
from regard.serve.linear import Pack
from regard.serve.look import Looking
from regard.serve.pages import Attends, Pages, StepLayout

FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}


def why_not(model: Any) -> str | None:
    """What of a model the fused step does not know; None where it computes what the model's own code computes."""
    family = FAMILIES.get(model.config.model_type)
    if family is None:
        return f"a model of type {model.config.model_type}"
    code = f"transformers.models.{model.config.model_type}.modeling_{model.config.model_type}"
    own = {f"{family}{part}" for part in ("Model", "DecoderLayer", "Attention", "MLP", "RMSNorm", "RotaryEmbedding")}
    if (type(model).__module__, type(model).__name__) != (code, f"{family}ForCausalLM"):
        return f"the class {type(model).__name__}"
    for name, module in model.named_modules():
        kind = type(module)
        known = kind in (nn.Linear, nn.Embedding, nn.ModuleList, nn.SiLU) or (
            kind.__module__ == code and kind.__name__ in own
        )
        if name and not known and kind.__name__ != "SiLUActivation":
            return f"the module {name} ({kind.__name__})"
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            return f"a hook on {name or 'the model'}"
    if model.config.hidden_act not in ("silu", "swish") or model.config.intermediate_size % 16:
        return f"a feed-forward of {model.config.hidden_act} and width {model.config.intermediate_size}"
    other = next((name for name, p in model.named_parameters() if p.dtype != torch.float32), None)
    return None if other is None else f"the type of {other}"


class Fused:
    """The weights of a model, packed; the model's own linear layers are let go. attends: of each layer, in order."""

    def __init__(self, model: Any, attends: list[Attends], pack: Pack) -> None:
        body = model.model
        self.embedding = body.embed_tokens.weight.detach()
        self.rotary = body.rotary_emb
        self.gain, self.eps = body.norm.weight.detach(), float(body.norm.variance_epsilon)
        self.head = pack(model.lm_head.weight, model.lm_head.bias)
        self.attends = attends
        self.layers = [_Layer(layer, pack) for layer in body.layers[: model.config.num_hidden_layers]]
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, nn.Identity())

    @property
    def products(self) -> list[PackedLinear]:
        """All packed weights."""
        return [self.head, *(product for layer in self.layers for product in layer.products)]

    def run(self, ids: Tensor, layout: StepLayout, keep: Tensor | None, pages: Pages, look: Looking | None) -> Tensor:
        """Logits float32 [kept rows, vocabulary]. ids int64 [T]; keep: int64 rows, None for all."""
        hidden = self.embedding.index_select(0, ids)
        step = _Step(self.layers[0], hidden, self.rotary, layout)
        threads = torch.get_num_threads()
        native = extension()
        for how, layer in zip(self.attends, self.layers):
            group, keys, values = pages.of(how, layer.groups, layer.width, layer.width)
            key_view, value_view = pages.views(how.layer)
            record = step.record(group)
            native.before_attention(layer.record, record, key_view, value_view, threads)
            step.attend(how, group, keys, values, threads)
            if look is not None:
                look(step.q, how, layout, pages)
            native.after_attention(layer.record, record, threads)
        kept = hidden if keep is None else hidden.index_select(0, keep)
        logits = torch.empty((len(kept), self.head.num_outputs))
        self.head.into(kept, logits, "store", self.gain, self.eps)
        return logits


class _Layer:
    """One layer's weights, and the extension's record of them."""

    def __init__(self, layer: Any, pack: Pack) -> None:
        attention, feed = layer.self_attn, layer.mlp
        self.width = int(attention.head_dim)
        self.heads = attention.q_proj.out_features // self.width
        self.groups = attention.k_proj.out_features // self.width
        first = (attention.q_proj, attention.k_proj, attention.v_proj)
        joined = pack(torch.cat([p.weight for p in first]), _biases(first))
        out = pack(attention.o_proj.weight, attention.o_proj.bias)
        both, bias = (feed.gate_proj, feed.up_proj), None
        if any(p.bias is not None for p in both):
            bias = gated(*(_bias(p) for p in both))
        between = pack(gated(*(p.weight for p in both)), bias)
        down = pack(feed.down_proj.weight, feed.down_proj.bias)
        self.products: list[PackedLinear] = [joined, out, between, down]
        norms = [layer.input_layernorm, layer.post_attention_layernorm]
        norms += [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        self.gains = [None if n is None else n.weight.detach().contiguous() for n in norms]
        self.record = extension().layer(
            [p.weights for p in self.products],
            [0 if g is None else g.data_ptr() for g in self.gains],
            float(norms[0].variance_epsilon),
            [self.heads, self.groups, self.width, self.width],
        )


class _Step:
    """The rows of one step between the calls: buffers that all layers share, and what their attention is told."""

    def __init__(self, like: _Layer, hidden: Tensor, rotary: Any, layout: StepLayout) -> None:
        self.layout = layout
        rows = len(hidden)
        outer = (like.heads + 2 * like.groups) * like.width
        self.joined = torch.empty((rows, outer))
        self.q = self.joined[:, : like.heads * like.width].unflatten(1, (like.heads, like.width))
        self.out = torch.empty((rows, like.heads, like.width))
        cos, sin = rotary(hidden[None], layout.positions[None])
        between = torch.empty((rows, like.products[3].depth))
        self.alive = [hidden, self.joined, self.out, between, cos[0].contiguous(), sin[0].contiguous()]
        self._records: dict[int, Any] = {}
        self._attention: dict[Any, _Attention] = {}

    def record(self, group: int) -> Any:
        """The extension's record of the step; what is written to pages depends on their group."""
        found = self._records.get(group)
        if found is None:
            slots = self.layout.slots(group)
            addresses = [t.data_ptr() for t in (*self.alive, slots)]
            found = self._records[group] = extension().step(len(self.joined), self.joined.stride(0), addresses)
        return found

    def attend(self, how: Attends, group: int, keys: Tensor, values: Tensor, threads: int) -> None:
        """q in pages -> out."""
        alike = how.alike
        found = self._attention.get(alike)
        if found is None:
            found = self._attention[alike] = _Attention(self, how, group, keys, values)
        found(keys, values, threads)


class _Attention:
    """The attention of layers that attend alike: the step's first sequences that have one row each by the decoding
    kernel, the others by the general walk."""

    def __init__(self, step: _Step, how: Attends, group: int, keys: Tensor, values: Tensor) -> None:
        plan = step.layout.plan(how, group, step.q.transpose(0, 1)[None], keys, values)
        layout = plan.layout
        assert isinstance(layout, Paged)
        first = step.layout.num_single if len(how.terms) == 1 else 0
        views, self.records = Views(), []
        if first:
            some = decode.record(plan, layout, torch.arange(first), plan.ranges.start[0, 0, :first, 0])
            some.raw.q, some.raw.out = views.view(step.q[:first]), views.view(step.out[:first])
            self.records.append(some)
        if first < layout.num_documents:
            whole = compiled(plan, True)
            raw = views.native.Call(whole.raw)
            raw.out = views.view(step.out.transpose(0, 1)[None])
            raw.documents(list(layout.queries), list(layout.keys), list(range(first, layout.num_documents)))
            self.records.append(Compiled(raw, whole.alive))
        self.plan, self.q, self.out = plan, step.q.data_ptr(), step.out.data_ptr()

    def __call__(self, keys: Tensor, values: Tensor, threads: int) -> None:
        addresses = (self.q, keys.data_ptr(), values.data_ptr(), self.out, 0, 0)
        for record in self.records:
            record.raw.again(addresses, threads)


def _bias(layer: nn.Linear) -> Tensor:
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach()


def _biases(layers: Any) -> Tensor | None:
    return None if all(p.bias is None for p in layers) else torch.cat([_bias(p) for p in layers])
