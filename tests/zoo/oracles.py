"""Independent dense statements of the papers' equations: plain torch on whole matrices, none of regard's parts.

Each takes Inputs and the factory's arguments and gives (output, weights); weights None where there are none.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from regard.inputs import Inputs

Found = tuple[Tensor | None, Tensor | None]


def heads_like(t: Tensor, x: Inputs) -> Tensor:
    """Key-value heads repeated for the query heads that read them."""
    return torch.stack([t[:, h * t.shape[1] // x.q.shape[1]] for h in range(x.q.shape[1])], 1)


def qkv(x: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    k, v = heads_like(x.k, x), heads_like(x.v, x)
    if x.key_valid is not None:
        gone = ~x.key_valid[:, None, :, None]
        k, v = k.masked_fill(gone, 0.0), v.masked_fill(gone, 0.0)
    return x.q, k, v


def dots(q: Tensor, k: Tensor) -> Tensor:
    return torch.einsum("bhid,bhjd->bhij", q, k)


def scaled(q: Tensor, k: Tensor) -> Tensor:
    return dots(q, k) / math.sqrt(k.shape[-1])


def mix(a: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhij,bhjd->bhid", a, v)


def back(x: Inputs) -> Tensor:
    """p_i - p_j, [B,1,Tq,Tk]."""
    return x.query_positions[:, None, :, None] - x.key_positions[:, None, None, :]


def cells(x: Inputs, mask: Tensor | None = None) -> Tensor:
    """The mask and the call's own validity, bool [B,H,Tq,Tk]."""
    seen = torch.ones(*x.q.shape[:3], x.k.shape[2], dtype=torch.bool)
    if mask is not None:
        seen = seen & mask
    if x.key_valid is not None:
        seen = seen & x.key_valid[:, None, None, :]
    if x.allowed is not None:
        seen = seen & x.allowed.dense()
    return seen


def soft(s: Tensor, m: Tensor, extra: Tensor | float | None = None) -> Tensor:
    """e^s / (extra + Σ e^s) over the cells of m."""
    top = s.masked_fill(~m, -math.inf).amax(-1, keepdim=True)
    top = top.where(m.any(-1, keepdim=True), 0.0)
    e = (s - top).exp().where(m, 0.0)
    total = e.sum(-1, keepdim=True)
    if extra is not None:
        total = total + extra * (-top).exp()
    return torch.where(total > 0, e / total.clamp(min=1e-300 if s.dtype == torch.float64 else 1e-37), 0.0)


def finish(x: Inputs, s: Tensor, mask: Tensor | None = None) -> Found:
    a = soft(s, cells(x, mask))
    return mix(a, qkv(x)[2]), a


# ---- scores


def scaled_dot(x: Inputs, **_: Any) -> Found:
    q, k, _v = qkv(x)
    return finish(x, scaled(q, k))


def dot(x: Inputs) -> Found:
    q, k, _ = qkv(x)
    return finish(x, dots(q, k))


def general(x: Inputs, w: Tensor) -> Found:
    q, k, _ = qkv(x)
    return finish(x, torch.einsum("bhid,de,bhje->bhij", q, w, k))


def _additive(x: Inputs, w_q: Tensor, w_k: Tensor, v: Tensor) -> Tensor:
    q, k, _ = qkv(x)
    hidden = torch.tanh((q @ w_q).unsqueeze(3) + (k @ w_k).unsqueeze(2))
    return torch.einsum("bhijm,m->bhij", hidden, v)


def additive(x: Inputs, w_q: Tensor, w_k: Tensor, v: Tensor) -> Found:
    return finish(x, _additive(x, w_q, w_k, v))


def pointer(x: Inputs, w_q: Tensor, w_k: Tensor, v: Tensor) -> Found:
    return None, additive(x, w_q, w_k, v)[1]


def concat(x: Inputs, w: Tensor, v: Tensor, query_width: int) -> Found:
    q, k, _ = qkv(x)
    n, m = q.shape[2], k.shape[2]
    pairs = torch.cat([q.unsqueeze(3).expand(-1, -1, -1, m, -1), k.unsqueeze(2).expand(-1, -1, n, -1, -1)], -1)
    return finish(x, torch.tanh(pairs @ w) @ v)


def _cosines(x: Inputs) -> Tensor:
    q, k, _ = qkv(x)
    return dots(q, k) / (q.norm(dim=-1).unsqueeze(-1) * k.norm(dim=-1).unsqueeze(-2)).clamp(min=1e-12)


def cosine(x: Inputs, sharpness: float) -> Found:
    return finish(x, _cosines(x) * sharpness)


def qk_norm(x: Inputs, gain: Tensor) -> Found:
    return finish(x, _cosines(x) * gain.view(1, -1, 1, 1))


def gaussian(x: Inputs, gamma: Tensor) -> Found:
    q, k, _ = qkv(x)
    return finish(x, -gamma.view(1, -1, 1, 1) * (q.unsqueeze(3) - k.unsqueeze(2)).pow(2).sum(-1))


def softcap(x: Inputs, cap: float) -> Found:
    q, k, _ = qkv(x)
    return finish(x, cap * torch.tanh(scaled(q, k) / cap))


def shaw(x: Inputs, keys: Tensor, values: Tensor) -> Found:
    q, k, v = qkv(x)
    reach = (keys.shape[0] - 1) // 2
    index = (-back(x)).clamp(-reach, reach) + reach
    r_k, r_v = keys[index][:, 0], values[index][:, 0]  # [B,Tq,Tk,D]
    s = torch.einsum("bhid,bhijd->bhij", q, k.unsqueeze(2) + r_k.unsqueeze(1)) / math.sqrt(q.shape[-1])
    a = soft(s, cells(x))
    return torch.einsum("bhij,bhijd->bhid", a, v.unsqueeze(2) + r_v.unsqueeze(1)), a


def transformer_xl(x: Inputs, u: Tensor, v: Tensor, w_r: Tensor) -> Found:
    q, k, _ = qkv(x)
    width = w_r.shape[1]
    distance = back(x)[:, 0].to(q.dtype)
    r = torch.zeros(*distance.shape, width, dtype=q.dtype)
    for m in range(width):
        angle = distance / 10000 ** (2 * (m // 2) / width)
        r[..., m] = torch.sin(angle) if m % 2 == 0 else torch.cos(angle)
    position = torch.einsum("bijm,hmd->bhijd", r, w_r)
    s = dots(q + u[:, None], k) + torch.einsum("bhid,bhijd->bhij", q + v[:, None], position)
    return finish(x, s / math.sqrt(q.shape[-1]), back(x) >= 0)


# ---- positions


def alibi(x: Inputs) -> Found:
    q, k, _ = qkv(x)
    heads = q.shape[1]
    slopes = torch.tensor([_slope(h, heads) for h in range(heads)], dtype=q.dtype)
    return finish(x, scaled(q, k) - slopes.view(1, -1, 1, 1) * back(x), back(x) >= 0)


def _slope(h: int, heads: int) -> float:
    power = 2 ** math.floor(math.log2(heads))
    if h < power:
        return (2 ** (-8 / power)) ** (h + 1)
    return (2 ** (-8 / (2 * power))) ** (2 * (h - power) + 1)


def t5(x: Inputs, table: Tensor, max_distance: int) -> Found:
    q, k, _ = qkv(x)
    distance = -back(x)
    bias = torch.empty(x.q.shape[0], q.shape[1], q.shape[2], k.shape[2], dtype=q.dtype)
    half = table.shape[0] // 2
    for b in range(x.q.shape[0]):
        for i in range(q.shape[2]):
            for j in range(k.shape[2]):
                d = int(distance[b, 0, i, j])
                n, exact = abs(d), half // 2
                far = exact + int(math.log(max(n, 1) / exact) / math.log(max_distance / exact) * (half - exact))
                bias[b, :, i, j] = table[(half if d > 0 else 0) + (n if n < exact else min(far, half - 1))]
    return finish(x, dots(q, k) + bias)


def rotary(x: Inputs) -> Found:
    q, k, _ = qkv(x)

    def turn(t: Tensor, positions: Tensor) -> Tensor:
        half = t.shape[-1] // 2
        theta = 10000 ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = positions[:, None, :, None].double() * theta
        z = torch.complex(t[..., :half].double(), t[..., half:].double()) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([z.real, z.imag], -1).to(t.dtype)

    return finish(x, scaled(turn(q, x.query_positions), turn(k, x.key_positions)))


def _waves(positions: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    out = torch.zeros(*positions.shape, width, dtype=torch.float64)
    for m in range(width):
        angle = positions.double() / 10000 ** (2 * (m // 2) / width)
        out[..., m] = angle.sin() if m % 2 == 0 else angle.cos()
    return out.to(dtype)[:, None]


def sinusoidal(x: Inputs) -> Found:
    q, k, _ = qkv(x)
    width = q.shape[-1]
    wave_q, wave_k = (_waves(p, width, q.dtype) for p in (x.query_positions, x.key_positions))
    return finish(x, scaled(q + wave_q, k + wave_k))


def learned_positions(x: Inputs, table: Tensor) -> Found:
    q, k, _ = qkv(x)
    return finish(x, scaled(q + table[x.query_positions][:, None], k + table[x.key_positions][:, None]))


# ---- kinds


def simplified(x: Inputs) -> Found:
    return dot(x)


def trainable(x: Inputs, w_q: Tensor, w_k: Tensor, w_v: Tensor) -> Found:
    q, k, v = qkv(x)
    a = soft(scaled(q @ w_q, k @ w_k), cells(x))
    return mix(a, v @ w_v), a


def causal(x: Inputs) -> Found:
    q, k, _ = qkv(x)
    return finish(x, scaled(q, k), back(x) >= 0)


def latent(x: Inputs, w_uk: Tensor, w_uv: Tensor, rotated: int) -> Found:
    rank = w_uk.shape[1]
    c = x.k[:, 0] if x.key_valid is None else x.k[:, 0].masked_fill(~x.key_valid[..., None], 0.0)
    keys = torch.einsum("btr,hrd->bhtd", c[..., :rank], w_uk)
    values = torch.einsum("btr,hrd->bhtd", c[..., :rank], w_uv)
    plain, turned = x.q[..., : w_uk.shape[2]], x.q[..., w_uk.shape[2] :]
    s = dots(plain, keys) + torch.einsum("bhid,bjd->bhij", turned, c[..., rank:])
    a = soft(s / math.sqrt(w_uk.shape[2] + rotated), cells(x))
    return mix(a, values), a


def external_memory(x: Inputs, keys: Tensor, values: Tensor) -> Found:
    k, v = (heads_like(t.expand(x.q.shape[0], *t.shape), x) for t in (keys, values))
    a = dots(x.q, k).softmax(-1)
    return mix(a, v), a


# ---- masks


def masked(x: Inputs, mask: Tensor) -> Found:
    q, k, _ = qkv(x)
    return finish(x, scaled(q, k), mask)


def prefix(x: Inputs, count: int) -> Found:
    return masked(x, (x.key_positions[:, None, None] < count) | (back(x) >= 0))


def document(x: Inputs, ids: Tensor) -> Found:
    of_query, of_key = ids[0][x.query_positions], ids[0][x.key_positions]
    return masked(x, (of_query[:, None, :, None] == of_key[:, None, None]) & (back(x) >= 0))


def block_sparse(x: Inputs, layout: Tensor, size: int) -> Found:
    mask = torch.zeros(*x.q.shape[:3], x.k.shape[2], dtype=torch.bool)
    for b in range(mask.shape[0]):
        for i, p in enumerate(x.query_positions[b].tolist()):
            for j, r in enumerate(x.key_positions[b].tolist()):
                mask[b, :, i, j] = layout[:, p // size, r // size]
    return masked(x, mask)


def window(x: Inputs, width: int) -> Found:
    return masked(x, (back(x) >= 0) & (back(x) < width))


def dilated(x: Inputs, width: int, step: int) -> Found:
    wanted = torch.tensor([m * step for m in range(-width, width + 1)])
    return masked(x, torch.isin(back(x), wanted))


def sinks(x: Inputs, count: int) -> Found:
    return masked(x, (x.key_positions[:, None, None] < count) & (back(x) >= 0))


def streaming(x: Inputs, width: int, count: int) -> Found:
    first = (x.key_positions[:, None, None] < count) & (back(x) >= 0)
    return masked(x, ((back(x) >= 0) & (back(x) < width)) | first)


def longformer(x: Inputs, reach: int, global_tokens: int) -> Found:
    tied = (x.key_positions[:, None, None] < global_tokens) | (x.query_positions[:, None, :, None] < global_tokens)
    return masked(x, (back(x).abs() <= reach) | tied)


def strided(x: Inputs, stride: int) -> Found:
    d = back(x)
    return masked(x, (d >= 0) & ((d < stride) | (d % stride == 0)))


def fixed(x: Inputs, stride: int, summary: int) -> Found:
    i, j = x.query_positions[:, None, :, None], x.key_positions[:, None, None]
    return masked(x, (i >= j) & ((i // stride == j // stride) | (j % stride >= stride - summary)))


def moba(x: Inputs, size: int, count: int) -> Found:
    return _selected(x, size, count, lambda q, block: q @ block.mean(0))


def quest(x: Inputs, size: int, count: int) -> Found:
    def bound(q: Tensor, block: Tensor) -> Tensor:
        return torch.maximum(q * block.amin(0), q * block.amax(0)).sum()

    return _selected(x, size, count, bound)


def _selected(x: Inputs, size: int, count: int, score: Any) -> Found:
    """Row by row: the own block, and the best of those before it."""
    q, k, _ = qkv(x)
    mask = torch.zeros(*q.shape[:3], k.shape[2], dtype=torch.bool)
    for b in range(q.shape[0]):
        valid = torch.ones(k.shape[2], dtype=torch.bool) if x.key_valid is None else x.key_valid[b]
        for h in range(q.shape[1]):
            for i, p in enumerate(x.query_positions[b].tolist()):
                own = p // size
                found = {}
                for block in range(own):
                    part = slice(block * size, (block + 1) * size)
                    kept = k[b, h, part][valid[part]]
                    found[block] = float(score(q[b, h, i], kept)) if len(kept) else 0.0
                best = sorted(found, key=lambda block: -found[block])[: count - 1]
                for block in [*best, own]:
                    mask[b, h, i, block * size : (block + 1) * size] = True
    return masked(x, mask & (back(x) >= 0))


def nsa(x: Inputs, w: Tensor, count: int, width: int, e: Tensor) -> Found:
    q, k, v = qkv(x)
    size, n = len(w), k.shape[2]
    whole = n // size
    if not whole:
        recent = masked(x, (back(x) >= 0) & (back(x) < width))[0]
        return x.per_query["gates"][..., 1:].sum(-1, keepdim=True) * recent, None
    small_k = torch.stack([(w[:, None] * (k[:, :, m * size : (m + 1) * size] + e)).sum(2) for m in range(whole)], 2)
    small_v = torch.stack([(w[:, None] * v[:, :, m * size : (m + 1) * size]).sum(2) for m in range(whole)], 2)
    ends = x.key_positions[:, size - 1 : whole * size : size]
    seen = x.query_positions[:, :, None] >= ends[:, None]
    if x.key_valid is not None:
        seen = seen & x.key_valid[:, : whole * size].reshape(-1, whole, size).all(-1)[:, None]
    seen = seen[:, None].expand(-1, q.shape[1], -1, -1)
    a_small = soft(scaled(q, small_k), seen)
    compressed = mix(a_small, small_v)
    per_group = q.shape[1] // x.k.shape[1]
    mask = torch.zeros(*q.shape[:3], n, dtype=torch.bool)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            mates = slice(h // per_group * per_group, (h // per_group + 1) * per_group)
            for i, p in enumerate(x.query_positions[b].tolist()):
                own = p // size
                gain = a_small[b, mates, i].sum(0)
                candidates = [m for m in range(1, own) if m < whole]
                fixed_blocks = [own, *([0] if own > 0 and count > 1 else [])]
                best = sorted(candidates, key=lambda m: -float(gain[m]))[: max(count - len(fixed_blocks), 0)]
                for block in [*fixed_blocks, *best]:
                    mask[b, h, i, block * size : (block + 1) * size] = True
    selected = masked(x, mask & (back(x) >= 0))[0]
    recent = masked(x, (back(x) >= 0) & (back(x) < width))[0]
    gates = x.per_query["gates"]
    return gates[..., :1] * compressed + gates[..., 1:2] * selected + gates[..., 2:] * recent, None


def reformer(x: Inputs, rotations: Tensor) -> Found:
    q, k, _ = qkv(x)
    k = k / k.norm(dim=-1, keepdim=True).clamp(min=1e-12)

    def bucket(t: Tensor, r: Tensor) -> Tensor:
        turned = t @ r
        return torch.cat([turned, -turned], -1).argmax(-1)

    mask = torch.zeros(*q.shape[:3], k.shape[2], dtype=torch.bool)
    for r in rotations:
        mask |= bucket(q, r).unsqueeze(-1) == bucket(k, r).unsqueeze(-2)
    return finish(x, scaled(q, k) - 1e5 * (back(x) == 0), mask & (back(x) >= 0))


# ---- normalisers


def off_by_one(x: Inputs) -> Found:
    q, k, v = qkv(x)
    a = soft(scaled(q, k), cells(x), 1.0)
    return mix(a, v), a


def learned_sink(x: Inputs, sink: Tensor) -> Found:
    q, k, v = qkv(x)
    a = soft(scaled(q, k), cells(x), sink.exp().view(1, -1, 1, 1))
    return mix(a, v), a


def topk(x: Inputs, k: int) -> Found:
    q, keys, v = qkv(x)
    s, m = scaled(q, keys), cells(x)
    kept = torch.zeros_like(m)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in s.shape[:3])).view(-1, 3).tolist():
        b, h, i = index
        order = sorted(
            (j for j in range(s.shape[3]) if m[b, h, i, j]),
            key=lambda j: (-float(s[b, h, i, j]), int(x.key_positions[b, j])),
        )
        kept[b, h, i, order[:k]] = True
    a = soft(s, kept)
    return mix(a, v), a


def hard(x: Inputs) -> Found:
    return topk(x, 1)


def temperature(x: Inputs, value: float) -> Found:
    q, k, _ = qkv(x)
    return finish(x, scaled(q, k) / value)


def sigmoid(x: Inputs, bias: float) -> Found:
    q, k, v = qkv(x)
    a = torch.sigmoid(scaled(q, k) + bias) * cells(x)
    return mix(a, v), a


def relu(x: Inputs) -> Found:
    q, k, v = qkv(x)
    m = cells(x)
    a = scaled(q, k).clamp(min=0) * m / m.sum(-1, keepdim=True).clamp(min=1)
    return mix(a, v), a


def _entmax_row(s: Tensor, alpha: Tensor) -> Tensor:
    """By plain bisection of τ, then the gradient of Peters 2019 (prop. 2) is not needed: values only."""
    if not len(s):
        return s
    z = (alpha - 1) * s.double()
    low, high = z.max() - 1, z.max()
    for _ in range(80):
        middle = (low + high) / 2
        total = ((z - middle).clamp(min=0) ** (1 / (alpha - 1))).sum()
        low, high = (middle, high) if total >= 1 else (low, middle)
    p = (z - low).clamp(min=0) ** (1 / (alpha - 1))
    return (p / p.sum()).to(s.dtype)


def adaptively_sparse(x: Inputs, alpha: Tensor) -> Found:
    q, k, v = qkv(x)
    s, m = scaled(q, k), cells(x)
    a = torch.zeros_like(s)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in s.shape[:3])).view(-1, 3).tolist():
        b, h, i = index
        a[b, h, i, m[b, h, i]] = _entmax_row(s[b, h, i][m[b, h, i]], alpha[h].double())
    return mix(a, v), a


def entmax(x: Inputs, alpha: float = 1.5) -> Found:
    return adaptively_sparse(x, torch.full((x.q.shape[1],), alpha, dtype=torch.float64))


def sparsemax(x: Inputs) -> Found:
    """Martins & Astudillo 2016, algorithm 1."""
    q, k, v = qkv(x)
    s, m = scaled(q, k), cells(x)
    a = torch.zeros_like(s)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in s.shape[:3])).view(-1, 3).tolist():
        b, h, i = index
        row = s[b, h, i][m[b, h, i]]
        if len(row):
            z = row.sort(descending=True).values
            sums = z.cumsum(0)
            size = max(n for n in range(1, len(z) + 1) if 1 + n * z[n - 1] > sums[n - 1])
            a[b, h, i, m[b, h, i]] = (row - (sums[size - 1] - 1) / size).clamp(min=0)
    return mix(a, v), a


# ---- adaptive


def adaptive_span(x: Inputs, z: Tensor, ramp: float) -> Found:
    q, k, v = qkv(x)
    d = back(x)
    share = ((ramp + z.view(1, -1, 1, 1) - d) / ramp).clamp(0, 1) * (d >= 0)
    s, seen = scaled(q, k), (share > 0) & cells(x)
    top = s.masked_fill(~seen, -torch.inf).amax(-1, keepdim=True).clamp(min=torch.finfo(s.dtype).min)
    e = share * seen * (s - top).clamp(max=0).exp()
    total = e.sum(-1, keepdim=True)
    a = torch.where(total > 0, e / total.where(total > 0, 1.0), 0.0)
    return mix(a, v), a


def local_m(x: Inputs, reach: int) -> Found:
    q, k, _ = qkv(x)
    return finish(x, dots(q, k), back(x).abs() <= reach)


def local_p(x: Inputs, w: Tensor, v: Tensor, reach: int) -> Found:
    q, k, values = qkv(x)
    size = k.shape[2] if x.key_valid is None else x.key_valid.sum(-1).view(-1, 1, 1)
    centre = size * torch.sigmoid(torch.tanh(q @ w) @ v)
    away = x.key_positions[:, None, None] - centre[..., None]
    sigma = reach / 2
    a = soft(dots(q, k), cells(x, away.abs() <= reach)) * torch.exp(-(away**2) / (2 * sigma**2))
    return mix(a, values), a


# ---- low rank, kernels


def linformer(x: Inputs, e: Tensor, f: Tensor) -> Found:
    q, k, v = qkv(x)
    a = scaled(q, e @ k).softmax(-1)
    return mix(a, f @ v), a


def nystrom(x: Inputs, landmarks: int) -> Found:
    q, k, v = qkv(x)

    def means(t: Tensor, valid: Tensor | None) -> Tensor:
        n = t.shape[2]
        rows = []
        for m in range(landmarks):
            members = [i for i in range(n) if i * landmarks // n == m]
            if valid is None:
                rows.append(t[:, :, members].mean(2))
            else:
                keep = valid[:, members].to(t.dtype)[:, None, :, None]
                part = t[:, :, members].masked_fill(keep == 0, 0.0)
                rows.append(part.sum(2) / keep.sum(2).clamp(min=1))
        return torch.stack(rows, 2)

    same = x.key_valid if q.shape[2] == k.shape[2] else None
    q_m, k_m = means(q, same), means(k, x.key_valid)
    left, inner = scaled(q, k_m).softmax(-1), scaled(q_m, k_m).softmax(-1)
    right = soft(scaled(q_m, k), cells(x)[:, :, :1].expand(-1, -1, landmarks, -1))
    eye = torch.eye(landmarks, dtype=q.dtype)
    z = inner.mT / (inner.abs().sum(-2).amax(-1) * inner.abs().sum(-1).amax(-1))[..., None, None]
    for _ in range(6):
        z = 0.25 * z @ (13 * eye - inner @ z @ (15 * eye - inner @ z @ (7 * eye - inner @ z)))
    a = left @ z @ right
    return mix(a, v), a


def _ratio(x: Inputs, s: Tensor, mask: Tensor | None = None) -> Found:
    s = s * cells(x, mask)
    total = s.sum(-1, keepdim=True)
    a = torch.where(total > 0, s / total.where(total > 0, 1.0), 0.0)
    return mix(a, qkv(x)[2]), a


def _elu1(t: Tensor) -> Tensor:
    return torch.where(t > 0, t + 1, t.clamp(max=0).exp())


def linear(x: Inputs) -> Found:
    q, k, _ = qkv(x)
    return _ratio(x, dots(_elu1(q), _elu1(k)))


def linear_recurrent(x: Inputs) -> Found:
    q, k, _ = qkv(x)
    return _ratio(x, dots(_elu1(q), _elu1(k)), back(x) >= 0)


def _favor(x: Inputs, features: int) -> Tensor:
    """log φ(q)·φ(k), in logarithms so that no exponential under- or overflows."""
    q, k, _ = qkv(x)
    width = q.shape[-1]
    generator = torch.Generator().manual_seed(0)
    blocks = []
    for _ in range(math.ceil(features / width)):
        rotation, r = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64, generator=generator))
        blocks.append((rotation @ torch.diag(r.diagonal().sign())).T)
    lengths = torch.randn(features, width, dtype=torch.float64, generator=generator).norm(dim=1, keepdim=True)
    omega = (torch.cat(blocks)[:features] * lengths).to(q.dtype)
    log_q, log_k = (t @ omega.T / width**0.25 - (t * t).sum(-1, keepdim=True) / math.sqrt(width) / 2 for t in (q, k))
    return torch.logsumexp(log_q.unsqueeze(3) + log_k.unsqueeze(2), -1)


def performer(x: Inputs, features: int) -> Found:
    return finish(x, _favor(x, features))


def performer_recurrent(x: Inputs, features: int) -> Found:
    return finish(x, _favor(x, features), back(x) >= 0)


# ---- recurrences: token by token, as the papers write them, on matrices of states


def _steps(x: Inputs) -> Any:
    """Per batch row and head: (b, h, valid tokens' indices)."""
    for b in range(x.q.shape[0]):
        valid = range(x.k.shape[2]) if x.key_valid is None else x.key_valid[b].nonzero().flatten().tolist()
        for h in range(x.q.shape[1]):
            yield b, h, list(valid)


def _gate(x: Inputs, name: str) -> Tensor:
    found = x.per_key[name]
    return heads_like(found, x)


def retention(x: Inputs, gamma: Tensor) -> Found:
    q, k, v = qkv(x)
    order = torch.arange(q.shape[2]) if x.key_valid is None else None
    a = torch.zeros(*q.shape[:3], k.shape[2], dtype=q.dtype)
    for b in range(q.shape[0]):
        count = order if order is not None else x.key_valid[b].cumsum(0)
        valid = torch.ones(k.shape[2], dtype=torch.bool) if x.key_valid is None else x.key_valid[b]
        d = count[:, None] - count[None]
        past = torch.ones_like(d, dtype=torch.bool).tril() & valid
        for h in range(q.shape[1]):
            a[b, h] = (q[b, h] @ k[b, h].T) * gamma[h] ** d.clamp(min=0) * past / math.sqrt(q.shape[-1])
    return mix(a, v), a


def gla(x: Inputs) -> Found:
    q, k, v = qkv(x)
    alpha = _gate(x, "log_decay").exp()
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for b, h, valid in _steps(x):
        state = torch.zeros(k.shape[-1], v.shape[-1], dtype=q.dtype)
        for t in range(q.shape[2]):
            if t in valid:
                state = torch.diag(alpha[b, h, t]) @ state + torch.outer(k[b, h, t], v[b, h, t])
            out[b, h, t] = q[b, h, t] @ state / math.sqrt(q.shape[-1])
    return out, None


def _unit(t: Tensor) -> Tensor:
    return t / t.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def gated_delta(x: Inputs) -> Found:
    q, k, v = qkv(x)
    q, k = _unit(q), _unit(k)
    beta = _gate(x, "beta")
    alpha = _gate(x, "log_decay").exp()[..., 0] if "log_decay" in x.per_key else torch.ones_like(beta)
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    eye = torch.eye(k.shape[-1], dtype=q.dtype)
    for b, h, valid in _steps(x):
        state = torch.zeros(v.shape[-1], k.shape[-1], dtype=q.dtype)  # the paper's S, values × keys
        for t in range(q.shape[2]):
            if t in valid:
                key, value, rate = k[b, h, t], v[b, h, t], beta[b, h, t]
                state = alpha[b, h, t] * state @ (eye - rate * torch.outer(key, key)) + rate * torch.outer(value, key)
            out[b, h, t] = state @ q[b, h, t]
    return out, None


def neural_memory(x: Inputs, w_1: Tensor, w_2: Tensor | None = None, mini_batch: int = 1) -> Found:
    """Token by token, the gradient by autograd at the memory before the mini-batch."""
    q, k, v = (t.detach() for t in qkv(x))
    q, k = _unit(q), _unit(k)
    alpha, eta, theta = (_gate(x, name).detach() for name in ("forget", "momentum", "rate"))
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)

    def read(weights: list[Tensor], at: Tensor) -> Tensor:
        hidden = at @ weights[0]
        return hidden if len(weights) == 1 else torch.nn.functional.silu(hidden) @ weights[1]

    for b, h, valid in _steps(x):
        weights = [w[h].detach().clone() for w in (w_1, w_2) if w is not None]
        momentum, anchor = [torch.zeros_like(w) for w in weights], weights
        for t in range(q.shape[2]):
            if t in valid:
                if valid.index(t) % mini_batch == 0:
                    anchor = [w.clone() for w in weights]
                leaves = [w.clone().requires_grad_() for w in anchor]
                loss = (read(leaves, k[b, h, t]) - v[b, h, t]).pow(2).sum()
                slopes = torch.autograd.grad(loss, leaves)
                momentum = [eta[b, h, t] * m - theta[b, h, t] * s for m, s in zip(momentum, slopes, strict=True)]
                weights = [(1 - alpha[b, h, t]) * w + m for w, m in zip(weights, momentum, strict=True)]
            out[b, h, t] = read(weights, q[b, h, t])
    return out, None


# ---- compositions


def differential(x: Inputs, share: Tensor) -> Found:
    q, k, v = qkv(x)
    d = q.shape[-1] // 2
    m = cells(x)
    first = soft(dots(q[..., :d], k[..., :d]) / math.sqrt(d), m)
    second = soft(dots(q[..., d:], k[..., d:]) / math.sqrt(d), m)
    a = first - share.view(1, -1, 1, 1) * second
    return mix(a, v), a


def talking_heads(x: Inputs, before: Tensor, after: Tensor) -> Found:
    q, k, v = qkv(x)
    s = torch.einsum("hg,bgij->bhij", before, scaled(q, k))
    a = torch.einsum("hg,bgij->bhij", after, soft(s, cells(x)))
    return mix(a, v), a


def joined_masks(x: Inputs, mask: Any) -> Found:
    """causal & (window(2) | sinks(1)) & ~every(3), the card's example."""
    d, j = back(x), x.key_positions[:, None, None]
    return masked(x, (d >= 0) & ((d < 2) | (j < 1)) & (d % 3 != 0))


def per_head(x: Inputs, parts: Any) -> Found:
    """The first part a window of two, the second causal, as in the card's example."""
    q, k, _ = qkv(x)
    d = back(x)
    first = parts[0][0].stop
    head = torch.arange(q.shape[1]).view(1, -1, 1, 1)
    return finish(x, scaled(q, k), (d >= 0) & ((d < 2) | (head >= first)))


# ---- chance: the draw itself is regard's (a function of where), what is done with it is not


def _sampled(x: Inputs, s: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    from regard.parts.noise import uniform

    where = x.tile(slice(0, x.q.shape[2]), slice(0, x.k.shape[2])).where
    noisy = s - torch.log(-torch.log(uniform(seed, where, torch.float64))).to(s.dtype)
    m = cells(x)
    best = noisy.masked_fill(~m, -math.inf).argmax(-1, keepdim=True)
    return torch.zeros_like(s).scatter(-1, best, 1.0) * m.any(-1, keepdim=True), noisy


def gumbel(x: Inputs, temperature: float, seed: int) -> Found:
    q, k, v = qkv(x)
    a, noisy = _sampled(x, scaled(q, k), seed)
    smooth = soft(noisy / temperature, cells(x))
    a = a + smooth - smooth.detach()
    return mix(a, v), a


def spatial_hard(x: Inputs, w_q: Tensor, w_k: Tensor, v: Tensor) -> Found:
    a, _ = _sampled(x, _additive(x, w_q, w_k, v), 0)
    return mix(a, qkv(x)[2]), a


def bigbird(x: Inputs, size: int, length: int, window: int, count: int, global_blocks: int) -> Found:
    from regard.parts.masks import random_blocks

    where = x.tile(slice(0, x.q.shape[2]), slice(0, x.k.shape[2])).where
    drawn = random_blocks(size, count, length)(where.batch, where.head, where.query, where.key)
    i, j = x.query_positions[:, None, :, None] // size, x.key_positions[:, None, None] // size
    return masked(x, drawn | ((i - j).abs() <= window // 2) | (i < global_blocks) | (j < global_blocks))


def kda(x: Inputs) -> Found:
    """Token by token, by the paper's own matrices: S_t = (I - β k kᵀ) Diag(α) S_{t-1} + β k vᵀ."""
    q, k, v = qkv(x)
    q, k = _unit(q), _unit(k)
    beta, alpha = _gate(x, "beta"), _gate(x, "log_decay").exp()
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for b, h, valid in _steps(x):
        state = torch.zeros(k.shape[-1], v.shape[-1], dtype=q.dtype)
        for t in range(q.shape[2]):
            if t in valid:
                key, rate = k[b, h, t], beta[b, h, t]
                forget = (torch.eye(len(key), dtype=q.dtype) - rate * torch.outer(key, key)) @ torch.diag(
                    alpha[b, h, t]
                )
                state = forget @ state + rate * torch.outer(key, v[b, h, t])
            out[b, h, t] = q[b, h, t] @ state
    return out, None


def forgetting(x: Inputs) -> Found:
    """The product of the gates after each key, pair by pair (Lin 2025, eq. 5), as weights: F_ij e^{s_ij} / Σ."""
    q, k, _ = qkv(x)
    f = _gate(x, "log_forget").exp()
    f = f if x.key_valid is None else f.masked_fill(~x.key_valid[:, None], 1.0)
    s, total = scaled(q, k), torch.zeros(*q.shape[:3], k.shape[2], dtype=q.dtype)
    for b in range(q.shape[0]):
        for i, p in enumerate(x.query_positions[b].tolist()):
            for j, r in enumerate(x.key_positions[b].tolist()):
                after = [n for n, t in enumerate(x.key_positions[b].tolist()) if r < t <= p]
                total[b, :, i, j] = f[b, :, after].prod(-1).log() if after else 0.0
    return finish(x, s + total, back(x) >= 0)


def trilinear(x: Inputs, w_q: Tensor, w_k: Tensor, w_m: Tensor) -> Found:
    q, k, _ = qkv(x)
    n, m = q.shape[2], k.shape[2]
    q, k = q.unsqueeze(3).expand(-1, -1, -1, m, -1), k.unsqueeze(2).expand(-1, -1, n, -1, -1)
    return finish(x, torch.cat([q, k, q * k], -1) @ torch.cat([w_q, w_k, w_m]))


def rotary_tables(x: Inputs, cos: Tensor, sin: Tensor) -> Found:
    """Each pair as a complex number, times e^{i angle}."""
    q, k, _ = qkv(x)

    def turn(t: Tensor, at: Tensor) -> Tensor:
        half = cos.shape[1]
        z = torch.complex(t[..., :half].double(), t[..., half : 2 * half].double())
        z = z * torch.complex(cos[at].double(), sin[at].double())[:, None]
        return torch.cat([z.real, z.imag, t[..., 2 * half :].double()], -1).to(t.dtype)

    return finish(x, scaled(turn(q, x.query_positions), turn(k, x.key_positions)))


def normmax(x: Inputs, alpha: float = 2.0) -> Found:
    """By the condition of optimality, with ‖b‖_α = 1 found by halving an interval in float64."""
    q, k, v = qkv(x)
    s, m = scaled(q, k), cells(x)
    a = torch.zeros_like(s)
    for b, h, i in torch.cartesian_prod(*(torch.arange(n) for n in s.shape[:3])).view(-1, 3).tolist():
        row = s[b, h, i][m[b, h, i]].double()
        if not len(row):
            continue
        low, high = row.max() - 1, row.max()
        for _ in range(100):
            middle = (low + high) / 2
            norm = (row - middle).clamp(min=0).pow(alpha / (alpha - 1)).sum()
            low, high = (middle, high) if norm > 1 else (low, middle)
        kept = (row - low).clamp(min=0).pow(1 / (alpha - 1))
        a[b, h, i, m[b, h, i]] = (kept / kept.sum()).to(s.dtype)
    return mix(a, v), a
