"""Files of generators: tensors are read, pickles refused; the converter takes tensors out of them and runs nothing."""

import argparse
import collections
import inspect
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._utils import _rebuild_tensor_v2

from csd_nerf.images.stylegan.conversion import _Dictionary, _Unpickler, read_pickled
from csd_nerf.images.stylegan.files import flat, load_generator, save_generator
from csd_nerf.images.stylegan.layouts import CheckpointError, read_generator
from tests.images.stylegan import formats

EXECUTED: list[str] = []


class Spy:
    """Leaves a trace if it is made by unpickling."""

    def __reduce__(self):
        return (EXECUTED.append, ("ran",))


class Shell:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


def of_rosinality() -> dict[str, object]:
    weights = formats.rosinality()
    mean = weights.pop("latent_avg")
    return {"g": {name: 0 * value for name, value in weights.items()}, "g_ema": weights, "latent_avg": mean, "d": {}}


def same(generator, weights: dict[str, torch.Tensor]) -> bool:
    z = torch.randn(2, formats.STYLE, generator=torch.Generator().manual_seed(0))
    return torch.equal(generator(z, truncation=0.7), read_generator(weights, "a")(z, truncation=0.7))


def test_rosinalitys_file_is_read_as_it_is_and_the_averaged_generator_taken(tmp_path: Path) -> None:
    torch.save(of_rosinality(), tmp_path / "a.pt")
    assert same(load_generator(tmp_path / "a.pt"), formats.rosinality())


@pytest.mark.parametrize("layout", ["rosinality", "nvidia"])
def test_safetensors_come_back_in_both_layouts(tmp_path: Path, layout) -> None:
    weights = formats.nvidia()
    save_generator(tmp_path / "new" / "a.safetensors", read_generator(weights, "a"), layout)
    assert same(load_generator(tmp_path / "new" / "a.safetensors"), weights)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.safetensors"]


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    generator = read_generator(formats.rosinality(), "a")
    for name, half in (("whole", False), ("half", True)):
        save_generator(tmp_path / f"{name}.safetensors", generator, "rosinality", half=half)
    found = load_generator(tmp_path / "half.safetensors")
    assert found.constant.dtype == torch.float32
    torch.testing.assert_close(found.constant, generator.constant, rtol=1e-3, atol=1e-3)


def test_weights_that_float16_does_not_hold_are_not_written_in_it(tmp_path: Path) -> None:
    weights = formats.rosinality()
    weights["conv1.activate.bias"] *= 1e6
    with pytest.raises(CheckpointError, match=r"a\.safetensors: conv1\.activate\.bias has values above 65504"):
        save_generator(tmp_path / "a.safetensors", read_generator(weights, "a"), "rosinality", half=True)
    assert not list(tmp_path.iterdir())


def test_pickles_are_refused_and_the_converter_named(tmp_path: Path) -> None:
    EXECUTED.clear()
    (tmp_path / "ffhq.pkl").write_bytes(pickle.dumps({"G_ema": Spy()}))
    torch.save({**of_rosinality(), "args": argparse.Namespace(size=16)}, tmp_path / "train.pt")
    torch.save({**of_rosinality(), "args": Spy()}, tmp_path / "evil.pt")
    for name in ("ffhq.pkl", "train.pt", "evil.pt"):
        command = f"csd stylegan convert {tmp_path / name} {Path(name).stem}.safetensors"
        with pytest.raises(CheckpointError, match="unpickling can run code: it is not read") as refused:
            load_generator(tmp_path / name)
        assert command in str(refused.value)
    assert not EXECUTED


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.pt", None, "there is no file"),
        ("a.txt", b"", "end with .safetensors, .pt, .pth"),
        ("a.pt", b"not a file of torch's", "cannot be read as a checkpoint|holds more than tensors"),
        ("a.safetensors", b"\xff" * 64, "cannot be read as safetensors"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        load_generator(tmp_path / name)


def test_what_is_no_state_dict_is_named(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_generator(tmp_path / "a.pt")
    torch.save({"g_ema": {"input.input": 3}}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="input.input is a int, no tensor"):
        load_generator(tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="name it c.safetensors"):
        save_generator(tmp_path / "c.pt", read_generator(formats.rosinality(), "a"), "rosinality")


def nvidias_modules() -> dict[str, types.ModuleType]:
    """`torch_utils.persistence` and `dnnlib.util` as far as the format goes: classes travel as their source code."""
    dnnlib, util = types.ModuleType("dnnlib"), types.ModuleType("dnnlib.util")
    package, persistence = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")

    class EasyDict(dict):
        pass

    def _reconstruct_persistent_obj(meta: dict):
        exec(meta["module_src"])  # what makes such files dangerous to load
        raise AssertionError("the converter must not get here")

    for found, module in ((EasyDict, util), (_reconstruct_persistent_obj, persistence)):
        found.__module__, found.__qualname__ = module.__name__, found.__name__
        setattr(module, found.__name__, found)
    return {module.__name__: module for module in (dnnlib, util, package, persistence)}


def write_nvidia(
    path: Path, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, attributes=None, **extra
) -> None:
    """A network file of stylegan2-ada-pytorch: modules in modules, each pickled with code that would leave a trace.

    `attributes` has those of modules, by the module's name; without it they have none, as in old files.
    """
    modules = nvidias_modules()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    rebuild = modules["torch_utils.persistence"]._reconstruct_persistent_obj
    easy = modules["dnnlib.util"].EasyDict
    source = f"import sys; sys.modules[{__name__!r}].EXECUTED.append('source')"

    class Module(torch.nn.Module):
        def __reduce__(self):
            state = {**self.__dict__, "init_kwargs": easy(z_dim=7), "betas": {0.5}, "size": torch.Size([4, 4])}
            meta = {"type": "class", "version": 6, "module_src": source, "class_name": "X", "state": state}
            return rebuild, (meta,), None

    root = Module()
    for key, value in weights.items():
        module, (*parents, last) = root, key.split(".")
        for name in parents:
            if name not in module._modules:
                module.add_module(name, Module())
            module = module._modules[name]
        if last in ("w_avg", "noise_const", "resample_filter"):
            module.register_buffer(last, value)
        else:
            module.register_parameter(last, torch.nn.Parameter(value))
    for name, values in (attributes or {}).items():
        vars(root.get_submodule(name)).update(values)
    with open(path, "wb") as file:
        pickle.dump({"G": None, "D": None, "G_ema": root, "training_set_kwargs": easy(path="x"), **extra}, file)
    for name in modules:
        monkeypatch.delitem(sys.modules, name)


def test_nvidias_pickle_is_converted_without_running_its_code(tmp_path: Path, monkeypatch) -> None:
    EXECUTED.clear()
    weights = formats.nvidia()
    write_nvidia(tmp_path / "ffhq.pkl", weights, monkeypatch)
    found = read_pickled(tmp_path / "ffhq.pkl")
    assert set(found) == set(weights) and all(torch.equal(found[name], weights[name]) for name in weights)
    assert same(read_generator(flat(found, "a"), "a"), weights) and not EXECUTED


def attributes_of_nvidia() -> dict[str, dict[str, object]]:
    """What NVIDIA's layers keep beside their weights, in published files."""
    mapping = {f"mapping.fc{i}": {"activation": "lrelu", "bias_gain": 0.01} for i in range(formats.MAPPING)}
    names = [f"synthesis.b{side}.conv{i}" for side in (4, 8, 16) for i in (0, 1) if side > 4 or i]
    affine = {f"{name}.affine": {"activation": "linear", "bias_gain": 1} for name in names}
    return {**mapping, **{name: {"activation": "lrelu"} for name in names}, **affine}


def test_nvidias_layers_are_those_that_are_computed_here(tmp_path: Path, monkeypatch) -> None:
    """Weights alone do not tell: the same ones make other pictures with another activation or multiplier."""
    weights, plain, path = formats.nvidia(), attributes_of_nvidia(), tmp_path / "a.pkl"
    write_nvidia(path, weights, monkeypatch, plain)
    assert same(read_generator(flat(read_pickled(path), "a"), "a"), weights)
    for name, attribute, value, said in (
        ("mapping.fc2", "bias_gain", 0.1, r"mapping\.fc2 has the bias_gain 0\.1, the lr_multiplier .* Only 0\.01"),
        ("mapping.fc0", "bias_gain", None, r"mapping\.fc0 has the bias_gain None"),
        ("mapping.fc1", "activation", "relu", r"mapping\.fc1 has the activation 'relu'\. Only 'lrelu'"),
        ("synthesis.b4.conv1", "activation", "swish", r"synthesis\.b4\.conv1 has the activation 'swish'"),
        ("synthesis.b16.conv0", "activation", "linear", r"synthesis\.b16\.conv0 has the activation 'linear'"),
    ):
        write_nvidia(path, weights, monkeypatch, {**plain, name: {**plain[name], attribute: value}})
        with pytest.raises(CheckpointError, match=r"a\.pkl: " + said + ".*not converted"):
            read_pickled(path)


def test_a_pickle_that_wants_more_is_refused_by_name(tmp_path: Path, monkeypatch) -> None:
    EXECUTED.clear()
    trace = tmp_path / "trace"
    write_nvidia(tmp_path / "a.pkl", formats.nvidia(), monkeypatch, augment_pipe=Shell(trace))
    torch.save({**of_rosinality(), "args": Shell(trace)}, tmp_path / "b.pt")
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"G_ema": {"b4": 1}, "D": collections.OrderedDict()}))
    (tmp_path / "d.pkl").write_bytes(b"\x80\x04garbage")
    (tmp_path / "e.pkl").write_bytes(pickle.dumps(inspect.getsource))
    (tmp_path / "g.pkl").write_bytes(b"\x80\x02cdnnlib.tflib.network\nNetwork\n)\x81.")
    for name, said in {
        "a.pkl": "wants to load (posix|nt|os).system.*nothing in it was executed",
        "b.pt": "system.*not converted",
        "c.pkl": r"no generator of stylegan2-ada-pytorch: G_ema, D\..*legacy\.py",
        "d.pkl": "cannot be read as a pickle",
        "e.pkl": "wants to load inspect.getsource",
        "f.pkl": "there is no file",
        "g.pkl": r"dnnlib\.tflib\.network\.Network.*TensorFlow versions are converted first by NVIDIA's legacy\.py",
    }.items():
        with pytest.raises(CheckpointError, match=said):
            read_pickled(tmp_path / name)
    assert not trace.exists() and not EXECUTED


def state_given_to(name: str, slots: bytes) -> bytes:
    """A pickle that looks a name up and gives it a state as objects with slots have it: (None, slots)."""
    return b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\nN" + slots + b"\x86b."


DEFAULTS = b"}X\x0c\x00\x00\x00__defaults__(K\x01tsX\x01\x00\x00\x00xK\x02s"
"""{"__defaults__": (1,), "x": 2}"""


@pytest.mark.parametrize(
    "name",
    [
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch.storage _load_from_bytes",
        "torch Size",
        "numpy dtype",
        "numpy.core.multiarray scalar",
        "numpy._core.multiarray scalar",
        "collections OrderedDict",
        "torch_utils.persistence _reconstruct_persistent_obj",
        "dnnlib.util EasyDict",
    ],
)
@pytest.mark.parametrize("slots", [True, False])
def test_a_pickle_cannot_change_what_it_looks_up(tmp_path: Path, name: str, slots: bool) -> None:
    """Neither torch's functions, for the whole process, nor the table's, for the next file."""
    rebuild = _rebuild_tensor_v2
    before = (rebuild.__defaults__, dict(vars(rebuild)), dict(vars(_Dictionary)))
    content = state_given_to(name, DEFAULTS)
    if not slots:
        content = content.replace(b"\nN}", b"\n}").replace(b"\x86b.", b"b.")
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.pkl (is not read: it changes|cannot be read as a pickle)") as error:
        read_pickled(tmp_path / "a.pkl")
    assert (rebuild.__defaults__, dict(vars(rebuild)), dict(vars(_Dictionary))) == before
    assert "EasyDict" in name or f"changes {name.replace(' ', '.').replace('_core', 'core')}" in str(error.value)
    assert not hasattr(torch.Size, "x") and not hasattr(collections.OrderedDict, "x")


def test_numpys_numbers_are_read_and_their_types_stay_what_they_say(tmp_path: Path, monkeypatch) -> None:
    class Disguised:
        """Eight bytes whose type is changed to a record of two after it was made."""

        def __reduce__(self):
            fields = {"a": (np.dtype("f4"), 0), "b": (np.dtype("f4"), 4)}
            return np.dtype, ("V8", False, True), (3, "|", None, ("a", "b"), fields, 8, 1, 0)

    big = np.frombuffer(b"\x40\x00\x00\x00", ">f4")[0]
    write_nvidia(tmp_path / "a.pkl", formats.nvidia(), monkeypatch, small=np.float32(2), big=big, other=Disguised())
    assert len(read_pickled(tmp_path / "a.pkl")) == len(formats.nvidia())
    with open(tmp_path / "a.pkl", "rb") as file:
        content = _Unpickler(file, tmp_path / "a.pkl").load()
    assert content["small"] == 2 and content["big"] == 2
    assert content["other"].made == np.dtype("V8") and content["other"].made.names is None


def test_rosinalitys_training_checkpoint_is_converted(tmp_path: Path) -> None:
    torch.save({**of_rosinality(), "args": argparse.Namespace(size=16, lr=0.002)}, tmp_path / "a.pt")
    assert same(read_generator(flat(read_pickled(tmp_path / "a.pt"), "a"), "a"), formats.rosinality())
