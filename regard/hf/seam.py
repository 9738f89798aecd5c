"""The seam: every call of transformers' attention interface that comes from an attached model goes to its handler.

While at least one model is attached, the functions in transformers' two registries (attention and masks) are wrapped.
A wrapped function looks up the module that calls. Calls of other models pass through. Nothing that a model can read of
itself changes: its configuration keeps the name of its own implementation, and its masks are the ones it would have
made. So a model takes the same path through its own code, whether attached or not.
"""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from regard.hf.errors import Unsupported
from regard.hf.masks import ModelMask, model_mask
from regard.hf.questions import Questions
from regard.mechanism import Mechanism


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One call of the interface, as the model made it. query [B,H,Tq,D], key [B,G,Tk,D], value [B,G,Tk,Dv].

    mask: what the model passed; keywords: everything else it passed. questions: what the masks of this forward mean.
    is_eager: whether the model's own eager function makes the output, to which no mask means that all is seen; to the
    others it may mean causal.
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Any
    dropout: float
    scaling: float | None
    keywords: Mapping[str, Any]
    questions: Questions
    is_eager: bool = False


@dataclass(frozen=True, eq=False)
class ShownCall:
    """Attention that a module has computed by itself, shown to whoever watches. query [B,H,T,Dk], key [B,G,S,Dk].

    mechanism: what it computed with them. valid: bool [B,S], the keys that are not padding, or None. first: the place
    of the first query in its sequence.
    """

    module: nn.Module
    mechanism: Mechanism
    query: Tensor
    key: Tensor
    value: Tensor
    valid: Tensor | None
    first: int


class Handler(ABC):
    """Who answers an attached model's calls. Write `attend`.

    masks: what the model is given where it asks for a mask. "own": the mask of its own implementation. "described": a
    ModelMask, which never holds queries × keys. "none": no mask, for handlers that know by themselves what each query
    may see.
    """

    masks: Literal["own", "described", "none"] = "own"
    holding = "is already attached; leave that block first"  # what whoever else would attach the model is told
    gives_way = (
        False  # whether whoever else attaches the model takes its place meanwhile; it lives while the model does
    )

    @abstractmethod
    def attend(self, call: AttentionCall) -> Tensor | None:
        """The output [B,Tq,H,Dv] in the query's type, or None: the model's own attention function makes it."""

    def shown(self, call: ShownCall) -> None:  # noqa: B027 (a handler need not care)
        """A module computed its attention by itself and shows it; its output is made."""

    def before_forward(  # noqa: B027 (a handler need not care)
        self, model: PreTrainedModel, is_outermost: bool, args: Any, kwargs: Any
    ) -> None:
        """A model, or a model inside it, is about to run with these arguments."""

    def after_forward(self) -> None:  # noqa: B027 (a handler need not care)
        """The attached model has run, or failed while it did."""


@dataclass(eq=False)
class _Attached:
    """One attached model, with its modules and configs by id. running: how many models inside one another run now,
    and in which thread. answers: gives the handler, which may be kept alive by its model alone."""

    answers: Callable[[], Handler | None]
    questions: Questions
    modules: frozenset[int]
    configs: frozenset[int]
    running: int = 0
    thread: int = 0
    open: bool = True
    gone: bool = False

    @property
    def handler(self) -> Handler:
        """Who answers its calls."""
        handler = self.answers()
        assert handler is not None
        return handler


_lock = threading.RLock()
_by_module: dict[int, _Attached] = {}
_running = threading.local()


@contextmanager
def handling(model: nn.Module, handler: Handler) -> Iterator[None]:
    """Hand the attention calls of a model to `handler` while the block runs; afterwards everything is as it was.

    Raises Unsupported for a model with a module that is already attached.
    """
    modules = {id(module): module for module in model.modules()}  # alive, so that their ids are their own
    configs = frozenset(id(module.config) for module in modules.values() if hasattr(module, "config"))
    answers = weakref.ref(handler) if handler.gives_way else lambda: handler
    attached = _Attached(answers, Questions(), frozenset(modules), configs)
    if handler.gives_way:
        weakref.finalize(model, _leave, attached, {})
    with ExitStack() as leaving:
        with _lock:
            before = {key: _by_module[key] for key in modules if key in _by_module}
            held = next((other.handler for other in before.values() if not other.handler.gives_way), None)
            if held is not None:
                raise Unsupported(f"{type(model).__name__} {held.holding}")
            if not _by_module:
                _wrap_registries()
            for other in before.values():
                other.open = False
            _by_module.update(dict.fromkeys(modules, attached))
            leaving.callback(_leave, attached, before)
        for module in modules.values():
            if isinstance(module, PreTrainedModel):
                _hook(module, attached, leaving)
        yield


def holder(model: nn.Module) -> Handler | None:
    """Who answers a model's calls now; None where it is not attached."""
    held = _by_module.get(id(model))
    return None if held is None else held.handler


def _leave(attached: _Attached, before: dict[int, _Attached]) -> None:
    """The modules go back to whom they were held by before, if that has not left meanwhile."""
    with _lock:
        attached.open, attached.gone = False, True
        for key in attached.modules:
            if _by_module.get(key) is attached:
                del _by_module[key]
        for key, other in before.items():
            if not other.gone:
                _by_module[key], other.open = other, True
        if not _by_module:
            _unwrap_registries()


# ---- forwards ------------------------------------------------------------------------------------------------------


def _hook(module: PreTrainedModel, attached: _Attached, leaving: ExitStack) -> None:
    """Note where forwards begin and end. The hooks are plain functions: a deep copy of the model does not copy what
    they know, and they do nothing for a module that is not attached."""

    @torch.compiler.disable
    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        if attached.open and id(module) in attached.modules:
            _begin(attached, module, args, kwargs)

    @torch.compiler.disable
    def after(module: nn.Module, args: Any, output: Any) -> None:
        if attached.open and id(module) in attached.modules:
            _end(attached)

    leaving.callback(module.register_forward_pre_hook(before, with_kwargs=True, prepend=True).remove)
    leaving.callback(module.register_forward_hook(after, always_call=True).remove)


def _begin(attached: _Attached, module: nn.Module, args: Any, kwargs: Any) -> None:
    assert isinstance(module, PreTrainedModel)
    this = threading.get_ident()
    with _lock:
        if attached.running and attached.thread != this:
            raise Unsupported(
                f"two threads run {type(module).__name__} at once while it is attached, and their rows would mix; run "
                "it in one thread, or attach a copy of the model for each"
            )
        attached.thread = this
        attached.running += 1
    stack = _running.__dict__.setdefault("stack", [])
    stack.append(attached)
    attached.handler.before_forward(module, attached.running == 1, args, kwargs)


def _end(attached: _Attached) -> None:
    if attached.thread != threading.get_ident() or not attached.running:
        return
    attached.running -= 1
    _running.stack.pop()
    if not attached.running:
        try:
            attached.handler.after_forward()
        finally:
            attached.questions.clear()


# ---- the registries ------------------------------------------------------------------------------------------------

_get_interface = AttentionInterface.get_interface


def _wrap_registries() -> None:
    for mapping, wrapped in ((AttentionInterface._global_mapping, _attending), (_masks(), _asking)):
        for name, own in list(mapping.items()):
            mapping[name] = wrapped(own)
    # "eager" stands in no registry: each model brings its own, as the default of get_interface. The entry is for
    # compiled models, which look at the registry to know whether they have to be traced again.
    AttentionInterface._global_mapping["eager"] = _attending(_no_default)
    AttentionInterface.get_interface = _interface  # type: ignore[method-assign]


def _unwrap_registries() -> None:
    AttentionInterface.get_interface = _get_interface  # type: ignore[method-assign]
    AttentionInterface._global_mapping.pop("eager", None)
    for mapping in (AttentionInterface._global_mapping, _masks()):
        for name, function in list(mapping.items()):
            if isinstance(function, partial) and function.func in (_attend, _ask):
                mapping[name] = function.args[0]


def _masks() -> dict[str, Any]:
    return AttentionMaskInterface._global_mapping


@cache
def _attending(own: Callable[..., Any], is_eager: bool = False) -> Callable[..., Any]:
    return partial(_attend, own, is_eager)


@cache
def _asking(own: Callable[..., Any]) -> Callable[..., Any]:
    return partial(_ask, own)


@torch.compiler.disable
def _interface(self: AttentionInterface, attn_implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
    if attn_implementation == "eager":
        return _attending(default, is_eager=True)
    function = _get_interface(self, attn_implementation, default)
    wrapped = isinstance(function, partial) and function.func is _attend
    return function if wrapped else _attending(function)


def _no_default(*args: Any, **kwargs: Any) -> Any:
    raise KeyError("eager")


@torch.compiler.disable
def _attend(
    own: Callable[..., Any],
    is_eager: bool,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any = None,
    **keywords: Any,
) -> Any:
    """What models call in place of `own`, their own attention function."""
    attached = _by_module.get(id(module))
    if attached is not None:
        rest = dict(keywords)
        dropout, scaling = rest.pop("dropout", 0.0), rest.pop("scaling", None)
        made = (module, query, key, value, attention_mask, dropout, scaling, rest, attached.questions, is_eager)
        call = AttentionCall(*made)
        out = attached.handler.attend(call)
        if out is not None:
            assert out.shape == (query.shape[0], query.shape[2], query.shape[1], value.shape[3])
            return out, None
    if isinstance(attention_mask, ModelMask):
        attention_mask = attention_mask.own()
    return own(module, query, key, value, attention_mask, **keywords)


@torch.compiler.disable
def show(
    module: nn.Module,
    mechanism: Mechanism,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    valid: Tensor | None = None,
    first: int = 0,
) -> None:
    """Show attention that `module` has computed by itself, as ShownCall says; nothing happens if it is not attached.

    For modules whose attention is no call of transformers' interface, such as a recurrent decoder's. The module is
    called once per forward, with all queries of that forward.
    """
    attached = _by_module.get(id(module))
    if attached is not None:
        attached.handler.shown(ShownCall(module, mechanism, query, key, value, valid, first))


def _asking_model(config: Any) -> _Attached | None:
    """Whose mask is asked for: that of the model that runs, else (`generate` asks before) one with this config."""
    stack = _running.__dict__.get("stack")
    if stack:
        return stack[-1]
    return next((a for a in {id(a): a for a in _by_module.values()}.values() if id(config) in a.configs), None)


@torch.compiler.disable
def _ask(own: Callable[..., Any], *args: Any, **question: Any) -> Any:
    """What models call in place of `own`, the mask function of their implementation."""
    attached = _asking_model(question.get("config"))
    if attached is None or args:
        return own(*args, **question)
    match attached.handler.masks:
        case "none":
            return None
        case "described":
            return model_mask(own, question)
        case "own":
            return attached.questions.note(model_mask(own, question))
