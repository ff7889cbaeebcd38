"""Swapped models of transformers: they train, generate with their cache, and come back from disk as they were."""

import copy
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from foreign_models import Bilinear
from torch import Tensor, nn

import memlayers
from memlayers import kernels
from memlayers.foreign.swapped import Swapped
from memlayers.layers import Dense, Memory, Peer
from memlayers.optim import RowwiseAdagrad

transformers = pytest.importorskip("transformers")
from safetensors.torch import load_file, save_file  # noqa: E402

VOCABULARY = 40
SIZES = {"vocab_size": VOCABULARY, "num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 16}
SIZES |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA = SIZES | {"intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8}
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(**SIZES),
    "llama": lambda: transformers.LlamaConfig(**LLAMA),
    "qwen2": lambda: transformers.Qwen2Config(**LLAMA),
    "qwen3": lambda: transformers.Qwen3Config(**LLAMA, tie_word_embeddings=True),
}
SETTINGS = {
    "memory": (Memory(num_keys=8, topk=4), "shared"),
    "gated": (Memory(num_keys=8, topk=4, gate=True, value_dtype="bfloat16"), "shared"),
    "peer": (Peer(num_keys=8, topk=4), "own"),
    "dense": (Dense(), None),
}


def pattern(family: str) -> str:
    return "transformer.h.*.mlp" if family == "gpt2" else "model.layers.*.mlp"


def swapped(family: str = "llama", settings: str = "memory", **changes) -> nn.Module:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[family]())
    ffn, pool = SETTINGS[settings]
    memlayers.swap(model, pattern(family), ffn, pool=pool, **changes)
    return model


def documents(count: int = 8) -> Tensor:
    return torch.randint(3, VOCABULARY, (count, 9), generator=torch.Generator().manual_seed(0))


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(documents()).logits


def train(model: nn.Module, steps: int = 30, tables: str = "sparse") -> list[float]:
    """Losses of steps on the same documents."""
    model.train()
    groups = memlayers.param_groups(model, tables)
    optimizers = [torch.optim.AdamW(groups if tables == "dense" else groups[:-1], lr=1e-2)]
    if tables == "sparse" and groups[-1]["params"]:
        optimizers.append(RowwiseAdagrad(lr=0.5).build(groups[-1]["params"], kernels.choose("auto")))
    losses = []
    for _ in range(steps):
        loss = model(documents(), labels=documents()).loss
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_it_trains_generates_and_comes_back(family, settings, tmp_path):
    model = swapped(family, settings)
    losses = train(model)
    assert losses[-1] < 0.7 * losses[0]
    asked = {"input_ids": documents(2)[:, :4], "max_new_tokens": 8, "do_sample": False}
    with_cache, without = (model.eval().generate(**asked, use_cache=cache) for cache in (True, False))
    assert with_cache.equal(without) and with_cache.shape[1] > 5
    model.save_pretrained(tmp_path / "first")
    back = memlayers.load_swapped(tmp_path / "first")
    assert type(back) is type(model) and logits(back).equal(logits(model))
    assert [p.dtype for p in back.parameters()] == [p.dtype for p in model.parameters()]
    back.save_pretrained(tmp_path / "second")
    assert logits(memlayers.load_swapped(tmp_path / "second")).equal(logits(model))
    assert back.generate(**asked).equal(with_cache)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_shared_table_is_written_once_and_shared_again(family, tmp_path):
    model = swapped(family)
    model.save_pretrained(tmp_path)
    tables = [name for name in load_file(tmp_path / "model.safetensors") if name.endswith("pool.values")]
    assert len(tables) == 1
    back = memlayers.load_swapped(tmp_path)
    assert len({id(one.layer.pool) for one in back.modules() if isinstance(one, Swapped)}) == 1
    assert sum(p.numel() for p in back.parameters()) == sum(p.numel() for p in model.parameters())
    train(back, steps=1)
    assert len({one.layer.pool.values.data_ptr() for one in back.modules() if isinstance(one, Swapped)}) == 1


@pytest.mark.parametrize("family", CONFIGS)
def test_transformers_alone_refuses_what_it_would_draw_anew(family, tmp_path):
    model = swapped(family)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"model type `memlayers_{family}`"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"memlayers\.load_swapped"):
        type(model).from_pretrained(tmp_path)


def test_parts_swaps_and_shards_come_back(tmp_path):
    """Several swaps of parts, in shards, in half precision; and settings go to from_pretrained."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"](), dtype=torch.bfloat16)
    memlayers.swap(model, "model.layers.0.mlp", Memory(num_keys=8, topk=4))
    memlayers.swap(model, "model.layers.2.mlp", Peer(num_keys=8, topk=4))
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    back = memlayers.load_swapped(tmp_path)
    assert back.dtype == torch.bfloat16 and logits(back).equal(logits(model))
    assert type(back.model.layers[1].mlp) is type(model.model.layers[1].mlp)
    assert memlayers.load_swapped(tmp_path, dtype=torch.float32).dtype == torch.float32


def test_a_layer_of_ones_own_comes_back_by_its_settings(tmp_path):
    model = transformers.LlamaForCausalLM(CONFIGS["llama"]())
    memlayers.swap(model, pattern("llama"), Bilinear(width=5))
    model.save_pretrained(tmp_path)
    assert logits(memlayers.load_swapped(tmp_path, layers=(Bilinear,))).equal(logits(model))
    with pytest.raises(
        ValueError, match=r"^Bilinear is no layer or rule of ours; accepted: with the file that defines"
    ):
        memlayers.load_swapped(tmp_path)


def test_a_layer_that_could_not_be_saved_is_refused_before_anything_is_changed(monkeypatch):
    model = transformers.LlamaForCausalLM(CONFIGS["llama"]())
    modules, config = dict(model.named_modules()), model.config
    monkeypatch.delattr("foreign_models.__file__")  # as in a notebook
    with pytest.raises(ValueError, match=r"^ffn=Bilinear is defined in no file, and cannot be saved; accepted: one in"):
        memlayers.swap(model, pattern("llama"), Bilinear())
    assert dict(model.named_modules()) == modules and model.config is config


def test_a_config_that_models_share_says_only_what_is_true():
    config = CONFIGS["llama"]()
    first, second = (transformers.LlamaForCausalLM(config) for _ in range(2))
    memlayers.swap(first, pattern("llama"), SETTINGS["memory"][0])
    assert not hasattr(second.config, "memlayers") and not hasattr(config, "memlayers")
    assert first.model.config is first.config and first.config.model_type == "llama"
    for again in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert again.config.to_dict() == first.config.to_dict() and logits(again).equal(logits(first))


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant):
    plain = swapped()
    lean = copy.deepcopy(plain)
    lean.activation_checkpointing_enable({"use_reentrant": reentrant})
    for model in (plain, lean):
        model.train()(documents(), labels=documents()).loss.backward()
    for (name, mine), theirs in zip(plain.named_parameters(), lean.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad.to_dense(), theirs[1].grad.to_dense(), msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's, at graph breaks
def test_all_around_a_layer_compiles_and_trains_as_without():
    config = CONFIGS["llama"]()
    config.num_hidden_layers = 1
    model = transformers.LlamaForCausalLM(config)
    memlayers.swap(model, pattern("llama"), Memory(num_keys=8, topk=4))
    compiled = copy.deepcopy(model)
    compiled.compile()
    assert train(compiled, steps=8) == pytest.approx(train(model, steps=8), rel=1e-3)


def edited(folder: Path, target: Path, **changes) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({k: v for k, v in (config | changes).items() if v is not None}))
    return target


def test_what_cannot_be_loaded_is_one_line(tmp_path):
    folder = tmp_path / "saved"
    swapped().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    other = config["memlayers"] | {"format": 0, "version": "0.0.9"}
    own = copy.deepcopy(config["memlayers"])
    own["swaps"][0]["ffn"]["kind"] = "Bilinear"
    lacking, short = edited(folder, tmp_path / "lacking"), edited(folder, tmp_path / "short")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.layer.lookup.keys")
    save_file(tensors, lacking / "model.safetensors", {"format": "pt"})
    (short / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1000])
    none = edited(folder, tmp_path / "none")
    (none / "model.safetensors").unlink()
    (tmp_path / "empty").mkdir()
    cases = {
        tmp_path / "nowhere": "no model there .FileNotFoundError.; accepted: the folder of a swapped model's save_pre",
        tmp_path / "empty": "no model there",
        folder / "config.json": "no model there",
        edited(folder, tmp_path / "plain", memlayers=None): "a model without layers of memlayers; accepted",
        edited(folder, tmp_path / "old", memlayers=other): "saved by memlayers 0.0.9; accepted: format 1, not 0",
        edited(folder, tmp_path / "own", memlayers=own): "Bilinear is no layer or rule of ours; accepted: with",
        edited(folder, tmp_path / "arch", architectures=["NoModel"]): "has no NoModel; accepted: one that has",
        lacking: "1 tensors missing or unknown, such as model.layers.1.mlp.layer.lookup.keys; accepted: none",
        short: "weights cannot be read .*; accepted: as save_pretrained wrote them",
        none: "weights cannot be read .*no file named model.safetensors",
    }
    damaged = {
        "architectures": [None, [], [3], 7],
        "model_type": [None, 7, "no_model"],
        "num_hidden_layers": [0],
        "hidden_size": ["64"],
        "memlayers": [{"format": 1}, {"format": 1, "swaps": 3}, {"format": 1, "swaps": [{}]}],
    }
    for key, values in damaged.items():
        for value in values:
            path = edited(folder, tmp_path / f"{key}{len(cases)}", **{key: value})
            file = path / "config.json"
            cases[path] = rf"^{file}: damaged \(\w+Error: [^\n]*\); accepted: as save_pretrained wrote it$"
    cases[edited(folder, tmp_path / "three", memlayers=3)] = "saved by memlayers None; accepted: format 1, not None"
    for path, said in cases.items():
        with pytest.raises(ValueError, match=said) as caught:
            memlayers.load_swapped(path)
        assert "\n" not in str(caught.value), path
    without = edited(folder, tmp_path / "without", transformers_weights=None)
    assert logits(memlayers.load_swapped(without)).equal(logits(memlayers.load_swapped(folder)))
