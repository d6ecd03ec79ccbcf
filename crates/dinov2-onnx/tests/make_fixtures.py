"""Writes tests/fixtures: tiny DINOv2 models exported by torch, their weights and what torch computes with them.

    pip install torch transformers timm onnx onnxscript safetensors
    python make_fixtures.py

Each NAME.onnx comes with NAME.safetensors:
  weight/CANONICAL  the state dict under DINOv2's own names; the position table as the graph holds it, with a row for CLS
  image             u8 [height, width, 3]
  tokens            f32 [n, dim], the final normed tokens of that image
  tap/TAP           f32, further tokens of that image, under the tap's name
"""

import shutil
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
from safetensors.numpy import save_file
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

FOLDER = Path(__file__).parent / "fixtures"
# ImageNet statistics, RGB order, inputs in 0..=1 (DINOv2 evaluation transform).
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SHAPE = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4, mlp_ratio=2)
PARTS = {
    "attention.q_proj": ("attn.qkv", 0), "attention.k_proj": ("attn.qkv", 1), "attention.v_proj": ("attn.qkv", 2),
    "mlp.gate_proj": ("mlp.w12", 0), "mlp.up_proj": ("mlp.w12", 1),
}
RENAMED = {
    "embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "register_tokens", "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "encoder.layer": "blocks", "attention.o_proj": "attn.proj", "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma", "mlp.down_proj": "mlp.w3", "layernorm": "norm", "reg_token": "register_tokens",
}


def randomise(model, seed):
    """Weights in which every parameter shows in the output; fresh models are mostly zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1 and not name.endswith(("token", "tokens", "embeddings", "pos_embed")):
            parameter.data = noise / parameter[0].numel() ** 0.5
        elif name.endswith("weight") or "lambda" in name or "gamma" in name:
            parameter.data = 1 + 0.2 * noise
        else:
            parameter.data = 0.3 * noise
    return model.eval()


def canonical(model):
    """The state dict under DINOv2's own names; the mask token is no part of an exported graph."""
    whole, parts = {}, {}
    for name, tensor in model.state_dict().items():
        if name.endswith("mask_token"):
            continue
        part = next((old for old in PARTS if old in name), None)
        for old, new in RENAMED.items():
            name = new + name[len(old):] if name.startswith(old) else name.replace("." + old, "." + new)
        if part is None:
            whole[name] = tensor
        else:
            new, place = PARTS[part]
            parts.setdefault(name.replace(part, new), {})[place] = tensor
    whole |= {name: torch.cat([tensors[place] for place in sorted(tensors)]) for name, tensors in parts.items()}
    return whole


class Tokens(torch.nn.Module):
    """Only the final tokens, from whatever the library returns."""

    def __init__(self, model, head=None):
        super().__init__()
        self.backbone, self.head = model, head

    def forward(self, pixels):
        if hasattr(self.backbone, "forward_features"):
            tokens = self.backbone.forward_features(pixels)
        else:
            tokens = self.backbone(pixels).last_hidden_state
        return tokens if self.head is None else self.head(tokens[:, 1:]).sigmoid()


def picture(height, width, seed):
    rows, cols = np.mgrid[0:height, 0:width].astype(np.float32)
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)) * 25
    waves = [127 + 100 * np.sin(rows / (2 + c) + c) * np.cos(cols / 3) for c in range(3)]
    image = np.stack(waves, axis=2) + noise
    return np.clip(image, 0, 255).astype(np.uint8)


def normalised(image, dtype=torch.float32):
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    return ((pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)).to(dtype)


def save(name, model, image, tokens, taps=None, positions=None):
    tensors = {f"weight/{key}": value.float() for key, value in canonical(model).items()}
    if positions is not None:
        tensors["weight/pos_embed"] = positions
    tensors |= {"image": torch.from_numpy(image), "tokens": tokens[0].float()}
    tensors |= {f"tap/{key}": value.float() for key, value in (taps or {}).items()}
    save_file({key: np.ascontiguousarray(value.numpy()) for key, value in tensors.items()}, FOLDER / f"{name}.safetensors")


def export(name, module, pixels, **options):
    options = {"input_names": ["pixels"], "output_names": ["out"], "dynamo": False} | options
    path = FOLDER / f"{name}.onnx"
    torch.onnx.export(module, (pixels,), str(path), **options)
    # The exporter notes the lines of Python behind every node.
    model = onnx.load(path, load_external_data=False)
    model.ClearField("metadata_props")
    for part in [model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output]:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    path.write_bytes(model.SerializeToString())


def hugging_face_taps(model, pixels):
    projections = {}
    layer = model.encoder.layer
    hooks = [
        getattr(layer[index].attention, f"{letter}_proj").register_forward_hook(
            lambda _module, _input, output, key=f"layer{index}_{facet}": projections.__setitem__(key, output[0])
        )
        for index in range(len(layer))
        for letter, facet in zip("qkv", ["query", "key", "value"])
    ]
    output = model(pixels, output_hidden_states=True, output_attentions=True)
    for hook in hooks:
        hook.remove()
    taps = {f"layer{index}": hidden[0] for index, hidden in enumerate(output.hidden_states[1:])}
    taps |= {f"layer{index}_norm": model.layernorm(hidden)[0] for index, hidden in enumerate(output.hidden_states[1:])}
    return taps | projections | {"cls_attention": output.attentions[-1][0, :, 0]}


@torch.no_grad()
def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()

    # Any size, the position table resampled in the graph; the picture is not of the table's grid.
    model = randomise(Dinov2Model(Dinov2Config(**SHAPE, attn_implementation="eager")), 1)
    image = picture(20, 28, 1)
    pixels = normalised(image)
    axes = {"pixels": {0: "batch", 2: "height", 3: "width"}}
    export("hugging_face", Tokens(model), pixels, dynamic_axes=axes, opset_version=17)
    save("hugging_face", model, image, Tokens(model)(pixels), hugging_face_taps(model, pixels))

    # SwiGLU and registers, the table baked for 4x6 patches, weights in an external data file, names lost.
    config = Dinov2WithRegistersConfig(**SHAPE, num_register_tokens=3, use_swiglu_ffn=True)
    model = randomise(Dinov2WithRegistersModel(config), 2)
    image = picture(16, 24, 2)
    export("registers_swiglu", Tokens(model), normalised(image), dynamo=True, external_data=True)
    patches = torch.zeros(1, 1 + 4 * 6, 24)
    baked = model.embeddings.interpolate_pos_encoding(patches, *image.shape[:2])
    save("registers_swiglu", model, image, Tokens(model)(normalised(image)), positions=baked)

    # timm: fused projections, positions without CLS.
    model = timm.create_model("vit_small_patch14_reg4_dinov2", embed_dim=24, depth=2, num_heads=3, img_size=16, patch_size=4)
    model = randomise(model, 3)
    image = picture(16, 16, 3)
    export("timm_registers", Tokens(model), normalised(image), opset_version=17)
    positions = torch.cat([torch.zeros(1, 1, 24), model.pos_embed], dim=1)
    save("timm_registers", model, image, Tokens(model)(normalised(image)), positions=positions)

    # Half precision, LayerNorm spelt out (opset 16), weights not folded into MatMul, and a decoder that is no part
    # of the backbone.
    model = randomise(Dinov2Model(Dinov2Config(**SHAPE)), 4).half()
    head = torch.nn.Linear(24, 5).half()
    image = picture(16, 16, 4)
    pixels = normalised(image, torch.float16)
    export("half_decoder", Tokens(model, head), pixels, opset_version=16, do_constant_folding=False)
    save("half_decoder", model, image, Tokens(model)(pixels))


main()
