"""fairseq's names for wav2vec 2.0 and HuBERT -> transformers', for every importer of a network that holds one."""

from __future__ import annotations

from . import KeyTable


def key_table(theirs: str, ours: str) -> KeyTable:
    """The table for a network whose tensors begin with ``theirs`` (a regular expression) there, with ``ours`` here.

    Of the two forms of the convolutions' norms, one for the whole first layer (base) or one a layer (large), each
    checkpoint has one.
    """
    conv, layer = rf"{theirs}feature_extractor\.conv_layers", rf"{theirs}encoder\.layers\.(\d+)"
    encoder = f"{ours}encoder."
    return {
        rf"{conv}\.(\d+)\.0\.(weight|bias)": rf"{ours}feature_extractor.conv_layers.\1.conv.\2",
        rf"{conv}\.0\.2\.(weight|bias)": rf"{ours}feature_extractor.conv_layers.0.layer_norm.\1",
        rf"{conv}\.(\d+)\.2\.1\.(weight|bias)": rf"{ours}feature_extractor.conv_layers.\1.layer_norm.\2",
        rf"{theirs}layer_norm\.(weight|bias)": rf"{ours}feature_projection.layer_norm.\1",
        rf"{theirs}post_extract_proj\.(weight|bias)": rf"{ours}feature_projection.projection.\1",
        rf"{theirs}encoder\.pos_conv\.0\.bias": rf"{encoder}pos_conv_embed.conv.bias",
        rf"{theirs}encoder\.pos_conv\.0\.weight_g": rf"{encoder}pos_conv_embed.conv.parametrizations.weight.original0",
        rf"{theirs}encoder\.pos_conv\.0\.weight_v": rf"{encoder}pos_conv_embed.conv.parametrizations.weight.original1",
        rf"{theirs}encoder\.layer_norm\.(weight|bias)": rf"{encoder}layer_norm.\1",
        rf"{layer}\.self_attn\.([qkv]_proj|out_proj)\.(weight|bias)": rf"{encoder}layers.\1.attention.\2.\3",
        rf"{layer}\.self_attn_layer_norm\.(weight|bias)": rf"{encoder}layers.\1.layer_norm.\2",
        rf"{layer}\.fc1\.(weight|bias)": rf"{encoder}layers.\1.feed_forward.intermediate_dense.\2",
        rf"{layer}\.fc2\.(weight|bias)": rf"{encoder}layers.\1.feed_forward.output_dense.\2",
        rf"{layer}\.final_layer_norm\.(weight|bias)": rf"{encoder}layers.\1.final_layer_norm.\2",
        rf"{theirs}mask_emb": None,  # used in training alone
    }
