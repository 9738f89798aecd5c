"""The mode that reads torch's operations while an attention module runs. It calls each as it came and changes none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from regard.hf.own_code.flow import Flow
from regard.hf.own_code.places.sampled import Level

SOFTMAX = frozenset({"aten::_softmax", "aten::softmax", "aten::_safe_softmax"})
PRODUCTS = frozenset({"aten::bmm", "aten::mm", "aten::matmul"})
FUSED = frozenset(
    {
        "aten::scaled_dot_product_attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
        "aten::_scaled_dot_product_fused_attention_overrideable",
    }
)
EXPONENTIALS = frozenset({"aten::logsumexp", "aten::sub", "aten::exp"})  # softmax in three steps
MULTI_HEAD = "aten::_native_multi_head_attention"
SAMPLING = frozenset({"aten::grid_sampler", "aten::grid_sampler_2d"})
DROPOUT = frozenset({"aten::native_dropout", "aten::dropout"})
# Element-wise: what they return is the weights, changed.
CHANGES = frozenset(
    {
        "aten::mul",
        "aten::div",
        "aten::where",
        "aten::masked_fill",
        "aten::masked_fill_",
        "aten::mul_",
        "aten::div_",
        "aten::_to_copy",
        "aten::to",
        "aten::type_as",
        "aten::clone",
        "aten::contiguous",
        "aten::reshape",
        "aten::nan_to_num",
        "aten::copy_",
    }
)


class Reading(TorchDispatchMode):
    """Follows softmaxes into products; `owner` is the attention module that runs now.

    fused: told (owner, name of the operation, its arguments by name) of torch's own fused attention.
    """

    def __init__(self, fused: Callable[[nn.Module, str, dict[str, Any]], None]) -> None:
        super().__init__()
        self.flow = Flow()
        self.owner: nn.Module | None = None
        self.paused = False
        self.levels: list[Level] = []  # feature maps sampled since the outermost attention module began
        self.fused = fused

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.owner is not None and not self.paused:
            self._read(func._schema, args, kwargs, result)
        return result

    def _read(self, schema: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        assert self.owner is not None
        name = schema.name
        if name in FUSED or name == MULTI_HEAD:
            given = {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)}
            self.fused(self.owner, name, given | kwargs)
        elif name in SAMPLING:
            height, width = args[0].shape[-2:]
            self.levels.append(Level(args[1].detach(), height, width, tuple(args[2:5]) == (0, 0, False)))
        elif name in SOFTMAX:
            dim = args[1] if len(args) > 1 else kwargs["dim"]
            if args[0].ndim >= 2 and dim % args[0].ndim == args[0].ndim - 1:
                self.flow.begin(self.owner, args[0], result)
        elif name in EXPONENTIALS:
            self.flow.exponential(self.owner, name, args, result)
        elif name == "aten::bernoulli_":
            self.flow.noise(result, args[1] if len(args) > 1 else kwargs.get("p", 0.5))
        elif not self.flow.by_memory:
            return
        elif name in PRODUCTS:
            _products(self.flow, args[0], args[1])
        elif name == "aten::baddbmm":
            _products(self.flow, args[1], args[2])
        elif name == "aten::einsum":
            _einsum(self.flow, args[0], args[1])
        else:
            self._hand_on(name, args, result)

    def _hand_on(self, name: str, args: Any, result: Any) -> None:
        for argument in args:
            if (followed := self.flow.of(argument)) is None:
                continue
            out = result[0] if isinstance(result, tuple | list) and result else result
            if not isinstance(out, Tensor):
                return
            if name in DROPOUT:
                dropping = len(args) < 3 or bool(args[2])
                self.flow.dropped(followed, out, float(args[1]) if dropping else 0.0)
            elif name == "aten::mul" and (kept := self.flow.chance(args)) is not None:
                self.flow.dropped(followed, out, 1.0 - kept)
            elif self.flow.of(out) is followed and name not in CHANGES:
                self.flow.viewed(followed, out)
            elif name in CHANGES:
                self.flow.changed(followed, argument, out)
            return


def _products(flow: Flow, left: Tensor, right: Tensor) -> None:
    flow.product(left, -1, right)
    if right.ndim >= 2:
        flow.product(right, -2, left)


def _einsum(flow: Flow, equation: str, operands: Any) -> None:
    """An einsum that reached us whole (inference mode): it sums over each letter that its result lacks."""
    inputs, _, output = equation.replace(" ", "").partition("->")
    for place, (letters, operand) in enumerate(zip(inputs.split(","), operands, strict=True)):
        others = [other for n, other in enumerate(operands) if n != place]
        if flow.of(operand) is None or not others:
            continue
        for axis, letter in enumerate(letters):
            if letter not in output and "." not in letters:
                flow.product(operand, axis, others[0])
