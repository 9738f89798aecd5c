"""The model types of the tasks, made known to transformers' Auto classes."""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForSequenceClassification

from regard.tasks.pooled import PooledClassifier, PooledConfig


def register() -> None:
    """Make the types known; twice does no harm."""
    AutoConfig.register(PooledConfig.model_type, PooledConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(PooledConfig, PooledClassifier, exist_ok=True)
