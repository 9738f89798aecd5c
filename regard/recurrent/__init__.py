"""Attention that is a state, updated token by token: linear, gated and delta-rule attention, and neural memories."""

from regard.recurrent.decay import Decay
from regard.recurrent.delta import Delta
from regard.recurrent.feature_sum import FeatureSum
from regard.recurrent.memory import NeuralMemory
from regard.recurrent.recurrence import Recurrence, State, ready, tokens

__all__ = ["Decay", "Delta", "FeatureSum", "NeuralMemory", "Recurrence", "State", "ready", "tokens"]
