"""Modules: attention with parameters, each by any mechanism. They build the mechanism's record each forward."""

from regard.nn.additive import AdditiveAttention
from regard.nn.glimpse import GlimpseNetwork
from regard.nn.mechanisms import Learned
from regard.nn.multi_head import MultiHeadAttention
from regard.nn.self_attention import CausalSelfAttention, CrossAttention, SelfAttention
from regard.nn.spatial import Glance, HardSpatialAttention, Reinforce, SpatialAttention
from regard.nn.titans import MemoryAsContext, MemoryAsGate, MemoryAsLayer, NeuralMemory
from regard.nn.transformer import TransformerDecoderLayer, TransformerEncoderLayer

__all__ = [
    "AdditiveAttention",
    "CausalSelfAttention",
    "CrossAttention",
    "Glance",
    "GlimpseNetwork",
    "HardSpatialAttention",
    "Learned",
    "MemoryAsContext",
    "MemoryAsGate",
    "MemoryAsLayer",
    "MultiHeadAttention",
    "NeuralMemory",
    "Reinforce",
    "SelfAttention",
    "SpatialAttention",
    "TransformerDecoderLayer",
    "TransformerEncoderLayer",
]
