"""Tiny models of every Hugging Face architecture that inlay has: our configurations and transformers' own classes."""

from typing import Any

from inlay.config import validate
from inlay.model import ModelConfig

VOCAB = 96

ATTENTION: dict[str, Any] = {"kind": "attention", "heads": 4, "kv_heads": 2, "head_size": 8}
PLAIN = {**ATTENTION, "qk_norm": False}
SWIGLU = {"kind": "swiglu", "inner": 40}
MLA = {"kind": "mla", "heads": 4, "q_rank": None, "kv_rank": 16, "nope_size": 8, "rope_size": 4, "value_size": 6}
LLAMA3 = {"kind": "llama3", "factor": 8.0, "low_factor": 1.0, "high_factor": 4.0, "original_context": 32}


def model_config(mixer: dict[str, Any] = ATTENTION, mlp: dict[str, Any] = SWIGLU, **options: Any) -> ModelConfig:
    """Four layers of width 32."""
    data = {
        "width": 32,
        "layers": 4,
        "blocks": {"full": {"mixer": mixer, "mlp": mlp}},
        "pattern": ["full"],
        "init_std": 0.2,
        "embedding_std": 0.5,
    }
    return validate(ModelConfig, {**data, **options})


def two_blocks(other: dict[str, Any], name: str, **options: Any) -> ModelConfig:
    """As `model_config`, layers of another mixer before each of the usual one."""
    blocks = {"full": {"mixer": ATTENTION, "mlp": SWIGLU}, name: {"mixer": other, "mlp": SWIGLU}}
    return model_config(blocks=blocks, pattern=[name, "full"], **options)


# By a name that starts with the architecture that they must get.
CONFIGS: dict[str, ModelConfig] = {
    "qwen3": model_config(),
    "qwen3 wide heads": model_config({**ATTENTION, "head_size": 12, "bias": "all"}, tie_embeddings=False),
    "qwen3 windows": two_blocks({**ATTENTION, "window": 5}, "local"),
    "llama": model_config({**PLAIN, "head_size": 12, "rope_theta": 500_000.0}, norm_eps=1e-5),
    "llama scaled": model_config(
        {**PLAIN, "rope_theta": 100.0, "rope_scaling": LLAMA3, "bias": "all"}, tie_embeddings=False
    ),
    "llama linear": model_config({**PLAIN, "rope_scaling": {"kind": "linear", "factor": 2.0}}),
    "qwen2": model_config({**PLAIN, "bias": "qkv"}),
    "arcee": model_config(PLAIN, {"kind": "relu2", "inner": 40}),
    "starcoder2": model_config(
        {**PLAIN, "bias": "all", "window": 6}, {"kind": "gelu", "inner": 40, "bias": True}, norm="layer"
    ),
    "starcoder2 unbiased": model_config(PLAIN, {"kind": "gelu", "inner": 40}, norm="layer", tie_embeddings=False),
    "deepseek_v3": model_config(MLA),
    "deepseek_v3 query rank": model_config({**MLA, "q_rank": 12}, tie_embeddings=False),
    "lfm2": two_blocks({"kind": "short_conv"}, "conv"),
}

BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "initializer_range": 0.3,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 100.0,  # of four frequencies one is blended
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# What people have on disk: transformers' config class and its options.
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3 windows": (
        "Qwen3",
        {"head_dim": 8, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "qwen2 windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
    "llama": ("Llama", {"rms_norm_eps": 1e-5}),
    "llama head_dim": ("Llama", {"head_dim": 12, "attention_bias": True}),
    "llama3 scaling": ("Llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3_ROPE}),
    "starcoder2": ("Starcoder2", {"sliding_window": 6}),
    "starcoder2 no window": ("Starcoder2", {"use_bias": False, "tie_word_embeddings": False}),
    "arcee": ("Arcee", {}),
    "lfm2": (
        "Lfm2",
        {"layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 16, "intermediate_size": 60},
    ),
    "deepseek_v3": (
        "DeepseekV3",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 12,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 6,
            "first_k_dense_replace": 3,
            "rope_interleave": False,
            "num_mtp_layers": 0,
        },
    ),
    "deepseek_v3 interleaved": (
        "DeepseekV3",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": None,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 6,
            "first_k_dense_replace": 3,
            "rope_interleave": True,
            "num_mtp_layers": 0,
        },
    ),
}
