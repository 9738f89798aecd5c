"""The model types of the tasks, made known to transformers' Auto classes."""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from regard.tasks.pooled import PooledClassifier, PooledConfig
from regard.tasks.writer.config import CaptionConfig, ListenConfig, SummaryConfig
from regard.tasks.writer.model import Captioner, Listener, Summariser


def register() -> None:
    """Make the types known; twice does no harm."""
    AutoConfig.register(PooledConfig.model_type, PooledConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(PooledConfig, PooledClassifier, exist_ok=True)
    for config, model in ((CaptionConfig, Captioner), (ListenConfig, Listener), (SummaryConfig, Summariser)):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForSeq2SeqLM.register(config, model, exist_ok=True)
