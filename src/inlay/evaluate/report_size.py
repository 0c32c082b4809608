"""What a run's model keeps for each token while it decodes, counted from its configuration."""

from typing import Any

from inlay.config import BadInput, validate
from inlay.evaluate.report_data import RunData
from inlay.model import ModelConfig
from inlay.model.table import count


def cache_bytes(run: RunData) -> float | None:
    """K/V bytes per token of a full context, in bf16; None where the configuration is none of this version."""
    train = run.config.get("train")
    length: Any = train.get("sequence_length") if isinstance(train, dict) else None
    model = run.config.get("model")
    if run.vocab_size is None or not isinstance(length, int) or length < 1 or not isinstance(model, dict):
        return None
    try:
        config = validate(ModelConfig, model, where=str(run.path))
        return count(config, run.vocab_size, length).cache_bytes
    except (BadInput, ValueError, TypeError):
        return None
