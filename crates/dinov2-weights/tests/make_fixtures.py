"""Makes tests/fixtures: tiny checkpoints written by torch, transformers and timm, and what they hold.

    python crates/dinov2-weights/tests/make_fixtures.py

Each checkpoint X comes with X.expected.safetensors: the same weights under DINOv2's own names, taken from the
reference's state dict. All weights are exactly representable in f16, so that comparisons are exact for every dtype.
`positions.safetensors` holds position tables as torch, transformers and timm resample them.
"""
import argparse
import json
import math
import os
import shutil
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.layers import SwiGLUPacked, resample_abs_pos_embed
from timm.models import save_for_hf
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DPTConfig,
    DPTForDepthEstimation,
)

FIXTURES = Path(__file__).parent / "fixtures"


def random_like(shape, generator):
    return (torch.randn(*shape, generator=generator) * 0.2).half().float()


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(random_like(parameter.shape, generator))


def save_expected(name, tensors):
    halves = {key: value.detach().float().half().contiguous() for key, value in tensors.items()}
    for key, value in tensors.items():
        assert torch.equal(halves[key].double(), value.double()), key
    save_file(halves, FIXTURES / f"{name}.expected.safetensors")


def official(seed, dim, depth, patch, side, hidden, registers=0, swiglu=False, layer_scale=True):
    """A state dict with the names and shapes of the official code's DinoVisionTransformer."""
    generator = torch.Generator().manual_seed(seed)
    shapes = OrderedDict()
    shapes["cls_token"] = (1, 1, dim)
    shapes["pos_embed"] = (1, 1 + side * side, dim)
    if registers:
        shapes["register_tokens"] = (1, registers, dim)
    shapes["mask_token"] = (1, dim)
    shapes["patch_embed.proj.weight"] = (dim, 3, patch, patch)
    shapes["patch_embed.proj.bias"] = (dim,)
    for block in range(depth):
        linear = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim)}
        linear |= (
            {"mlp.w12": (2 * hidden, dim), "mlp.w3": (dim, hidden)}
            if swiglu
            else {"mlp.fc1": (hidden, dim), "mlp.fc2": (dim, hidden)}
        )
        for module, shape in linear.items():
            shapes[f"blocks.{block}.{module}.weight"] = shape
            shapes[f"blocks.{block}.{module}.bias"] = shape[:1]
        for norm in ("norm1", "norm2"):
            shapes[f"blocks.{block}.{norm}.weight"] = (dim,)
            shapes[f"blocks.{block}.{norm}.bias"] = (dim,)
        if layer_scale:
            shapes[f"blocks.{block}.ls1.gamma"] = (dim,)
            shapes[f"blocks.{block}.ls2.gamma"] = (dim,)
    shapes["norm.weight"] = (dim,)
    shapes["norm.bias"] = (dim,)
    return OrderedDict((name, random_like(shape, generator)) for name, shape in shapes.items())


def make_official():
    weights = official(1, dim=24, depth=2, patch=2, side=3, hidden=48)
    save_expected("official", weights)
    torch.save(weights, FIXTURES / "official.pth")


def make_official_training():
    """A training checkpoint: teacher and student, wrappers, block chunks, strided and shared storages, other things."""
    weights = official(2, dim=64, depth=2, patch=3, side=2, hidden=24, registers=4, swiglu=True, layer_scale=False)
    save_expected("official_training", weights)
    teacher = OrderedDict()
    table = torch.cat([weights["cls_token"].reshape(-1), weights["mask_token"].reshape(-1)])
    for index, (name, value) in enumerate(weights.items()):
        if name.startswith("blocks."):
            _, block, rest = name.split(".", 2)
            name = f"blocks.{block}.{block}.{rest}"
        if name.endswith("qkv.weight"):
            value = value.t().contiguous().t()
        elif name == "patch_embed.proj.weight":
            value = value.to(memory_format=torch.channels_last)
        elif name == "cls_token":
            value = table[:64].reshape(1, 1, 64)
        elif name == "mask_token":
            value = table[64:].reshape(1, 64)
        elif name.endswith(".bias"):
            value = torch.nn.Parameter(value.double())
        elif name.endswith("proj.weight"):
            value = value.half()
        teacher[f"module.backbone.{name}"] = value
    teacher["module.dino_head.mlp.0.weight"] = torch.zeros(2, 2)
    student = {name: torch.zeros(1) for name in teacher if "patch_embed.proj.weight" in name}
    statistics = defaultdict(list)
    statistics["losses"].append(np.float64(0.5))
    checkpoint = {
        "teacher": teacher,
        "student": student,
        "args": argparse.Namespace(lr=1e-3, names={"a", "b"}, blob=b"\x00\x01"),
        "optimizer": {"state": {0: {"step": torch.tensor(3)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.99)}]},
        "statistics": statistics,
        "iteration": 10**20,
    }
    torch.save(checkpoint, FIXTURES / "official_training.pth", pickle_protocol=4)


class RunsCode:
    """Unpickled by Python, this would create a file. Our reader must not."""

    def __reduce__(self):
        return os.system, ("touch ran-code-from-a-checkpoint",)


def rezip(source, target, **how):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **how) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))


def make_odd_archives():
    """The same tiny weights in archives that are sound, foreign or hostile."""
    weights = official(8, dim=8, depth=1, patch=1, side=1, hidden=8)
    save_expected("tiny", weights)
    torch.save({"hook": RunsCode(), "model": weights}, FIXTURES / "tiny_with_code.pth")
    torch.save(weights, FIXTURES / "tiny_before_1_6.pth", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(1, 1), FIXTURES / "whole_module.pth")
    torch.save(weights, FIXTURES / "tiny.pth")
    rezip(FIXTURES / "tiny.pth", FIXTURES / "tiny_deflated.pth", compression=zipfile.ZIP_DEFLATED)
    # Python then writes the 64-bit records that archives beyond 4 GB have.
    zipfile.ZIP64_LIMIT = zipfile.ZIP_FILECOUNT_LIMIT = 0
    rezip(FIXTURES / "tiny.pth", FIXTURES / "tiny_zip64.pth")


def canonical_of_hugging_face(model):
    source = {name: value.detach() for name, value in model.state_dict().items()}
    canonical = {
        "cls_token": source["embeddings.cls_token"],
        "pos_embed": source["embeddings.position_embeddings"],
        "mask_token": source["embeddings.mask_token"],
        "patch_embed.proj.weight": source["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": source["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": source["layernorm.weight"],
        "norm.bias": source["layernorm.bias"],
    }
    if "embeddings.register_tokens" in source:
        canonical["register_tokens"] = source["embeddings.register_tokens"]
    for block, layer in enumerate(model.encoder.layer):
        attention, prefix = layer.attention, f"blocks.{block}"
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        canonical[f"{prefix}.attn.qkv.weight"] = torch.cat([p.weight for p in projections])
        canonical[f"{prefix}.attn.qkv.bias"] = torch.cat(
            [torch.zeros(p.weight.shape[0]) if p.bias is None else p.bias for p in projections]
        )
        linear = {"attn.proj": attention.o_proj, "norm1": layer.norm1, "norm2": layer.norm2}
        if model.config.use_swiglu_ffn:
            for field in ("weight", "bias"):
                halves = [getattr(layer.mlp.gate_proj, field), getattr(layer.mlp.up_proj, field)]
                canonical[f"{prefix}.mlp.w12.{field}"] = torch.cat(halves)
            linear["mlp.w3"] = layer.mlp.down_proj
        else:
            linear |= {"mlp.fc1": layer.mlp.fc1, "mlp.fc2": layer.mlp.fc2}
        for name, module in linear.items():
            canonical[f"{prefix}.{name}.weight"] = module.weight
            canonical[f"{prefix}.{name}.bias"] = module.bias
        canonical[f"{prefix}.ls1.gamma"] = layer.layer_scale1.lambda1
        canonical[f"{prefix}.ls2.gamma"] = layer.layer_scale2.lambda1
    return canonical


def make_hugging_face():
    shared = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, patch_size=2, image_size=6)
    model = Dinov2Model(Dinov2Config(**shared, mlp_ratio=2, layer_norm_eps=1e-5))
    randomise(model, 3)
    save_expected("hugging_face", canonical_of_hugging_face(model))
    model.save_pretrained(FIXTURES / "hugging_face")
    # The names that transformers keeps in memory, under a prefix and with a head.
    newer = {f"dinov2.{name}": value.contiguous() for name, value in model.state_dict().items()}
    newer["classifier.weight"] = torch.zeros(2, 2)
    save_file(newer, FIXTURES / "hugging_face_newer_names.safetensors")

    config = Dinov2WithRegistersConfig(**shared, mlp_ratio=2, use_swiglu_ffn=True, qkv_bias=False, num_register_tokens=3)
    model = Dinov2WithRegistersModel(config)
    randomise(model, 4)
    save_expected("hugging_face_shards", canonical_of_hugging_face(model))
    model.save_pretrained(FIXTURES / "hugging_face_shards", max_shard_size="20KB")
    newer = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(newer, FIXTURES / "hugging_face_shards_newer_names.safetensors")


def canonical_of_timm(model, swiglu):
    canonical = dict(model.state_dict())
    if "reg_token" in canonical:
        canonical["register_tokens"] = canonical.pop("reg_token")
        table = canonical["pos_embed"]
        canonical["pos_embed"] = torch.cat([torch.zeros(1, 1, table.shape[-1]), table], dim=1)
    if swiglu:
        canonical = {
            name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value for name, value in canonical.items()
        }
    return canonical


def make_timm():
    shared = dict(img_size=6, patch_size=2, embed_dim=64, depth=1, num_heads=1, num_classes=0)
    model = timm.models.VisionTransformer(**shared, mlp_ratio=0.5, init_values=1e-5)
    randomise(model, 5)
    save_expected("timm", canonical_of_timm(model, swiglu=False))
    save_file(model.state_dict(), FIXTURES / "timm.safetensors")

    shared |= dict(embed_dim=48, num_heads=3)
    model = timm.models.VisionTransformer(
        **shared, mlp_ratio=1.0, mlp_layer=SwiGLUPacked, act_layer=torch.nn.SiLU, reg_tokens=2, no_embed_class=True
    )
    randomise(model, 6)
    model.pretrained_cfg = dict(
        architecture="vit_giant_patch14_reg4_dinov2",
        input_size=(3, 6, 6),
        mean=(0.0, 0.25, 0.5),
        std=(1.0, 1.0, 0.5),
        license="apache-2.0",
    )
    save_expected("timm_registers", canonical_of_timm(model, swiglu=True))
    save_for_hf(model, FIXTURES / "timm_registers", model_args={"num_heads": 3}, safe_serialization=True)


def make_rectangular():
    """timm models whose tables are not square: with CLS, without, and with rows for registers; `reads` are the tables of
    timm for other grids, CLS and registers as timm adds them."""
    cases = {
        "rectangular_with_class": dict(img_size=(4, 16), reg_tokens=0, no_embed_class=False),
        "rectangular_without_class": dict(img_size=(6, 8), reg_tokens=2, no_embed_class=True),
        "rectangular_with_registers": dict(img_size=(6, 10), reg_tokens=3, no_embed_class=False),
    }
    for seed, (name, arguments) in enumerate(cases.items(), 20):
        shared = dict(patch_size=2, embed_dim=8, depth=1, num_heads=1, mlp_ratio=1, num_classes=0)
        model = timm.models.VisionTransformer(**shared, **arguments, dynamic_img_size=True, init_values=1.0)
        randomise(model, seed)
        folder = FIXTURES / name
        folder.mkdir()
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
        height, width = arguments["img_size"]
        config = dict(
            architecture="vit_small_patch14_dinov2",
            num_features=8,
            model_args=dict(num_heads=1, **arguments),
            pretrained_cfg=dict(input_size=(3, height, width), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        )
        (folder / "config.json").write_text(json.dumps(config))
        embedded = {}
        for rows, cols in [(height // 2, width // 2), (width // 2, height // 2), (4, 4), (3, 7)]:
            # What is added before the first block, where patches are all zero.
            zeros = torch.zeros(1, rows, cols, 8)
            embedded[f"{rows}x{cols}"] = model._pos_embed(zeros)[0].detach().contiguous().clone()
        save_file(embedded, FIXTURES / f"{name}.expected.safetensors")


def make_chunks():
    """Official names with blocks in chunks that each count from 0, as FSDP wrappers of others write them."""
    weights = official(30, dim=8, depth=4, patch=1, side=1, hidden=8)
    save_expected("chunks", weights)
    chunks = {}
    for name, value in weights.items():
        if name.startswith("blocks."):
            _, block, rest = name.split(".", 2)
            name = f"blocks.{int(block) // 2}.{int(block) % 2}.{rest}"
        chunks[name] = value.contiguous()
    save_file(chunks, FIXTURES / "chunks.safetensors")


def make_depth():
    """Larger models of transformers with DINOv2 as their backbone."""
    shared = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=1, patch_size=2, image_size=6, mlp_ratio=1)
    stages = dict(out_features=["stage1", "stage2"])
    neck = dict(neck_hidden_sizes=[4, 4], reassemble_factors=[2, 1], fusion_hidden_size=4)
    plain = Dinov2Config(**shared, **stages, reshape_hidden_states=False)
    with_registers = Dinov2WithRegistersConfig(**shared, **stages, reshape_hidden_states=False)
    models = {
        "depth_dpt": DPTForDepthEstimation(DPTConfig(backbone_config=plain, neck_ignore_stages=[], **neck)),
        "depth_anything": DepthAnythingForDepthEstimation(
            DepthAnythingConfig(backbone_config=with_registers, head_hidden_size=4, **neck)
        ),
        "classifier": Dinov2ForImageClassification(Dinov2Config(**shared, num_labels=2)),
    }
    for seed, (name, model) in enumerate(models.items(), 40):
        randomise(model, seed)
        backbone = model.dinov2 if name == "classifier" else model.backbone
        save_expected(name, canonical_of_hugging_face(backbone))
        model.save_pretrained(FIXTURES / name)


def official_table(table, rows, cols, offset, antialias):
    """As `interpolate_pos_encoding` of the official code does it, for one image of rows x cols patches."""
    side = math.isqrt(table.shape[1] - 1)
    grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if offset:
        how = dict(scale_factor=(float(rows + offset) / side, float(cols + offset) / side))
    else:
        how = dict(size=(rows, cols))
    grid = F.interpolate(grid, mode="bicubic", antialias=antialias, **how)
    assert grid.shape[-2:] == (rows, cols)
    return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).reshape(1, rows * cols, -1)], dim=1)


def hugging_face_table(table, rows, cols, registers):
    dim, side, patch = table.shape[-1], math.isqrt(table.shape[1] - 1), 14
    shared = dict(hidden_size=dim, num_attention_heads=1, num_hidden_layers=1, patch_size=patch, image_size=side * patch)
    model = (
        Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**shared))
        if registers
        else Dinov2Model(Dinov2Config(**shared))
    )
    model.embeddings.position_embeddings.data = table
    tokens = torch.zeros(1, 1 + rows * cols, dim)
    return model.embeddings.interpolate_pos_encoding(tokens, rows * patch, cols * patch).detach()


def make_positions():
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    grids = {
        5: [(5, 5), (4, 4), (5, 7), (7, 5), (1, 1), (1, 25), (2, 9), (10, 3), (16, 12)],
        # Images of 546, 602, 1092, 1204, 1610 and 1722 pixels, whose scale factors round badly.
        37: [(39, 3), (2, 43), (78, 2), (3, 86), (115, 1), (2, 123), (16, 16), (43, 39), (18, 24), (36, 38)],
    }
    for side, targets in grids.items():
        table = torch.randn(1, 1 + side * side, 3, generator=generator)
        tensors[f"{side}.table"] = table[0]
        for rows, cols in targets:
            unchanged = rows == side and cols == side
            key = f"{side}.{rows}x{cols}"
            scale_factor = table if unchanged else official_table(table, rows, cols, 0.1, antialias=False)
            exact = hugging_face_table(table, rows, cols, registers=False)
            antialias = resample_abs_pos_embed(table, [rows, cols], old_size=[side, side])
            others = [hugging_face_table(table, rows, cols, registers=True)]
            others += [] if unchanged else [official_table(table, rows, cols, 0.0, antialias=True)]
            for other in others:
                assert (antialias - other).abs().max() < 1e-6
            tensors[f"{key}.official_scale_factor"] = scale_factor[0]
            tensors[f"{key}.exact_size"] = exact[0]
            tensors[f"{key}.exact_size_antialias"] = antialias[0]
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, FIXTURES / "positions.safetensors")


def main():
    shutil.rmtree(FIXTURES, ignore_errors=True)
    FIXTURES.mkdir()
    make_official()
    make_official_training()
    make_odd_archives()
    make_hugging_face()
    make_timm()
    make_positions()
    make_rectangular()
    make_chunks()
    make_depth()
    total = sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file())
    print(json.dumps({"fixtures_bytes": total}))


if __name__ == "__main__":
    main()
