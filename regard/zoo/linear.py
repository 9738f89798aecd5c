"""Linear attention: a kernel in place of the exponential; Performer's random features."""

from __future__ import annotations

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.features import PositiveFeatures
from regard.parts.normalisers import Ratio
from regard.parts.prepare import EluPlusOne
from regard.parts.scores import Dot
from regard.recurrent import Decay, FeatureSum
from regard.zoo.card import Card

LINEAR = "Katharopoulos et al. 2020, Transformers are RNNs, eq. 4-7"
RECURRENT = "Katharopoulos et al. 2020, Transformers are RNNs, eq. 16-20"
PERFORMER = "Choromanski et al. 2021, Rethinking Attention with Performers, eq. 7 and section 2.4"


def linear(*, mask: Mask = FULL) -> Mechanism:
    """a = φ(q)·φ(k) / Σ φ(q)·φ(k), φ = elu + 1: with its weights, for any mask, in quadratic time."""
    return mechanism_with("linear", LINEAR, prepare=(EluPlusOne(),), score=(Dot(1.0),), normaliser=Ratio(), mask=mask)


def linear_recurrent() -> Decay:
    """The same under a causal mask, as a state of size Dk · Dv: S_t = S_{t-1} + φ(k) vᵀ."""
    return Decay("linear_recurrent", RECURRENT, normalise=True, prepare=(EluPlusOne(),))


def performer(*, features: int = 256, seed: int = 0, mask: Mask = FULL) -> Mechanism:
    """a = φ(q)·φ(k) / Σ φ(q)·φ(k), E φ(q)·φ(k) = e^{q·k/√Dk}: softmax in expectation, by positive random features."""
    prepare = (PositiveFeatures(features, seed),)
    return mechanism_with("performer", PERFORMER, prepare=prepare, score=(Dot(1.0),), normaliser=Ratio(), mask=mask)


def performer_recurrent(*, features: int = 256, seed: int = 0) -> FeatureSum:
    """The same under a causal mask, as a state of size m · Dv, safe for scores of any size."""
    return FeatureSum("performer_recurrent", PERFORMER, features, seed)


CARDS = (
    Card(
        name="linear",
        family="low rank and kernels",
        line="A positive feature map in place of the exponential; its weights are shown.",
        equation="a_ij = φ(q_i)·φ(k_j) / Σ_j φ(q_i)·φ(k_j),  φ(x) = elu(x) + 1",
        source=LINEAR,
        time="O(n² d) with any mask and its weights; linear_recurrent: O(n d²)",
        memory="O(n d)",
        attends="every key",
        factory=linear,
    ),
    Card(
        name="linear_recurrent",
        family="recurrences",
        line="Causal linear attention as a state that keys and values are added to.",
        equation="S_t = S_{t-1} + φ(k_t) v_tᵀ,  z_t = z_{t-1} + φ(k_t),  o_t = φ(q_t)ᵀS_t / φ(q_t)ᵀz_t",
        source=RECURRENT,
        time="O(n d²)",
        memory="O(d²) state",
        stored="",
        attends="the whole past, through a sum",
        factory=linear_recurrent,
    ),
    Card(
        name="performer",
        family="low rank and kernels",
        line="Random features whose products are the softmax's exponentials on average.",
        equation="φ(x) = e^{ω x̂ - ‖x̂‖²/2} / √m,  x̂ = x / Dk^{1/4},  a_ij = φ(q_i)·φ(k_j) / Σ_j",
        source=PERFORMER,
        time="O(n² m) with any mask and its weights; performer_recurrent: O(n m d)",
        memory="O(n (d + m))",
        attends="every key",
        factory=performer,
        example=lambda s: {"features": 8},
    ),
    Card(
        name="performer_recurrent",
        family="recurrences",
        line="Causal Performer as a state.",
        equation="S_t = S_{t-1} + φ(k_t) v_tᵀ,  o_t = φ(q_t)ᵀS_t / φ(q_t)ᵀz_t",
        source=PERFORMER,
        time="O(n m d)",
        memory="O(m d) state",
        stored="",
        attends="the whole past, through a sum",
        factory=performer_recurrent,
        example=lambda s: {"features": 8},
    ),
)
