"""Weight files: names of PyTorch's networks, nothing loose, and never a pickle."""

import json
import pathlib
import pickle
import zipfile

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from spaced_kd import weights
from spaced_kd.errors import CheckpointError, NonFiniteError, StorageError
from spaced_kd.models import deit, pit, resnet
from spaced_kd.weights import import_torch, to_torch

SHAPE = (8, 8, 3)


def _resnet(classes=5):
    return resnet.ResNet(classes, blocks=(1, 1), base_width=4)


def _deit(classes=5):
    return deit.DeiT(classes, dim=6, depth=2, patch_size=4, distilled=True)


def _pit(classes=5):
    return pit.PiT(classes, dim=4, depths=(1, 1), heads=(1, 2), patch_size=4)


MAKE = {"resnet": _resnet, "deit": _deit, "pit": _pit}


def _random(model):
    """Variables of random numbers, none alike, and their shapes from the network."""
    image = jnp.zeros((1, *SHAPE))
    init = lambda: model.init(jax.random.key(0), image, train=False)
    r = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(r.uniform(0.1, 1.0, x.shape), jnp.float32)
    return jax.tree.map(draw, jax.eval_shape(init))


@pytest.fixture(params=MAKE)
def network(request):
    model = MAKE[request.param]()
    return model, _random(model)


NAMES = {
    "resnet": {
        "conv1.weight": (4, 3, 3, 3),
        "bn1.running_var": (4,),
        "layer2.0.conv1.weight": (8, 4, 3, 3),
        "layer2.0.downsample.0.weight": (8, 4, 1, 1),
        "layer2.0.downsample.1.running_mean": (8,),
        "fc.weight": (5, 8),
        "fc.bias": (5,),
    },
    "deit": {
        "cls_token": (1, 1, 6),
        "dist_token": (1, 1, 6),
        "pos_embed": (1, 6, 6),
        "patch_embed.proj.weight": (6, 3, 4, 4),
        "blocks.1.attn.qkv.weight": (18, 6),
        "blocks.1.mlp.fc1.bias": (24,),
        "norm.weight": (6,),
        "head_dist.weight": (5, 6),
    },
    "pit": {
        "pos_embed": (1, 4, 3, 3),
        "patch_embed.conv.weight": (4, 3, 4, 4),
        "transformers.1.pool.conv.weight": (8, 1, 3, 3),
        "transformers.1.pool.fc.weight": (8, 4),
        "transformers.1.blocks.0.norm2.bias": (8,),
        "head.bias": (5,),
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_tensors_have_the_published_names_and_shapes(name):
    """torchvision's, the DeiT release's and timm's; [out, in, height, width]."""
    model = MAKE[name]()
    tensors = to_torch(_random(model), model)
    assert NAMES[name].items() <= {k: v.shape for k, v in tensors.items()}.items()


def test_a_convolution_keeps_every_weight_at_its_place():
    """Output, input, row, column: one swapped pair of axes would still have shape."""
    model = _resnet()
    variables = _random(model)
    ours = variables["params"]["stage2_block1"]["conv2"]["kernel"]
    theirs = to_torch(variables, model)["layer2.0.conv2.weight"]
    for o, i, row, column in [(7, 2, 0, 1), (3, 5, 2, 0)]:
        assert theirs[o, i, row, column] == ours[row, column, i, o]


def test_out_and_in_again_is_the_same_bit_for_bit(network):
    model, variables = network
    back = import_torch(to_torch(variables, model), model, SHAPE)
    chex.assert_trees_all_equal(back, variables)


def test_a_file_is_read_like_a_dict_in_any_float_type(network, tmp_path):
    model, variables = network
    tensors = to_torch(variables, model)
    path = tmp_path / "w.safetensors"
    for dtype in (np.float64, np.float16, ml_dtypes.bfloat16):
        stored = {name: value.astype(dtype) for name, value in tensors.items()}
        # What PyTorch's BatchNorm counts is in its files and no weight.
        stored["bn1.num_batches_tracked"] = np.array(7)
        safetensors.numpy.save_file(stored, path)
        back = import_torch(str(path), model, SHAPE)
        expected = jax.tree.map(
            lambda x, d=dtype: np.asarray(x).astype(d).astype(np.float32), variables
        )
        chex.assert_trees_all_equal(back, expected)


def test_pits_own_release_is_read_too():
    """It numbers the poolings, timm puts each in the stage that it leads to."""
    model = _pit()
    variables = _random(model)
    tensors = {
        name.replace("transformers.1.pool", "pools.0"): value
        for name, value in to_torch(variables, model).items()
    }
    assert "pools.0.conv.weight" in tensors
    chex.assert_trees_all_equal(import_torch(tensors, model, SHAPE), variables)


def _error(tensors, model=None, kind=CheckpointError, shape=SHAPE):
    with pytest.raises(kind) as error:
        import_torch(tensors, model or _resnet(), shape)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_surplus_and_misshapen_tensors_are_named_at_once():
    model = _resnet()
    tensors = to_torch(_random(model), model)
    del tensors["bn1.bias"]
    tensors["layer9.0.conv1.weight"] = np.ones(3, np.float32)
    tensors["conv1.weight"] = np.ones((4, 3, 7, 7), np.float32)
    message = _error(tensors)
    assert "missing bn1.bias;" in message
    assert "surplus layer9.0.conv1.weight;" in message
    assert "of another shape conv1.weight [4, 3, 7, 7], not [4, 3, 3, 3]" in message
    del tensors["bn1.weight"], tensors["bn1.running_var"], tensors["fc.bias"]
    assert "(+ 1 more)" in _error(tensors)


def test_another_number_of_classes_says_so():
    tensors = to_torch(_random(_resnet(10)), _resnet(10))
    assert "has 10 classes and the network num_classes=5" in _error(tensors)
    tensors = to_torch(_random(_deit(10)), _deit(10))
    assert "has 10 classes" in _error(tensors, _deit())


def test_another_number_of_classes_says_so_of_branches_too():
    theirs, ours = (
        deit.DeiT(n, dim=6, depth=2, patch_size=4, branches=True) for n in (10, 5)
    )
    tensors = to_torch(_random(theirs), theirs)
    assert "has 10 classes" in _error(tensors, ours)


def test_another_image_size_says_so():
    tensors = to_torch(_random(_deit()), _deit())
    assert "image_shape" in _error(tensors, _deit(), shape=(16, 16, 3))


def test_values_that_are_no_weights_are_refused():
    model = _resnet()
    tensors = to_torch(_random(model), model)
    bad = tensors | {"fc.bias": np.array([1, np.nan, 0, 0, 0], np.float32)}
    assert "NaN or infinite fc.bias" in _error(bad, kind=NonFiniteError)
    whole = tensors | {"fc.bias": np.arange(5)}
    assert "not floating point fc.bias" in _error(whole)


class _Bomb:
    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path("exploded"),))


def _pickled(path):
    path.write_bytes(pickle.dumps({"w": _Bomb()}))


def _zipped(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(_Bomb()))


@pytest.mark.parametrize("write", [_pickled, _zipped])
@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.ckpt", "w.safetensors", "w"])
def test_pickles_are_refused_unread_whatever_their_name(
    write, name, tmp_path, monkeypatch
):
    """Both forms that PyTorch writes; the message says what to do instead."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    write(path)
    message = _error(path)
    assert f"{path} is a pickle" in message
    assert "safetensors.torch.save_file" in message
    assert not pathlib.Path("exploded").exists()


def test_a_safetensors_file_by_a_pickles_name_is_refused_by_name(tmp_path):
    path = tmp_path / "w.pt"
    safetensors.numpy.save_file({"a": np.ones(1)}, path)
    assert "is a pickle by its name" in _error(path)


def test_damaged_other_and_absent_files_are_one_line(tmp_path):
    model = _resnet()
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(to_torch(_random(model), model), path)
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    assert "is damaged" in _error(path)
    for other in (b"", b"GIF89a, not a weight file"):
        path.write_bytes(other)
        assert "is not a safetensors file" in _error(path)
    assert "nowhere" in _error(tmp_path / "nowhere", kind=StorageError)


def test_a_type_that_numpy_lacks_is_one_line(tmp_path):
    """As quantised models are stored; written by hand, since NumPy cannot."""
    header = {"fc.bias": {"dtype": "F8_E4M3", "shape": [5], "data_offsets": [0, 5]}}
    text = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(5))
    message = _error(path)
    assert "fc.bias (F8_E4M3)" in message and "convert" in message


# A long header may begin with the byte that begins a pickle.
def test_a_header_length_that_looks_like_a_pickle_is_read(tmp_path):
    model = _resnet()
    variables = _random(model)
    path = tmp_path / "w.safetensors"
    for size in range(600):
        padding = {"note": "x" * size}
        safetensors.numpy.save_file(to_torch(variables, model), path, padding)
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes()[:1] == b"\x80"
    chex.assert_trees_all_equal(import_torch(path, model, SHAPE), variables)


ABOUT = {"model": "resnet8", "arch": {}, "num_classes": 5, "image_shape": [8, 8, 3]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 99}, "format 99"),
        ({"arch": {"colour": "red"}}, "does not say which network"),
        ({"image_shape": None}, "does not say which network"),
    ],
)
def test_an_export_of_another_version_is_one_line(change, words, tmp_path):
    text = json.dumps({"format": 1} | ABOUT | change)
    safetensors.numpy.save_file(
        {"a": np.ones(1)}, tmp_path / weights.FILE_NAME, {"spaced_kd": text}
    )
    with pytest.raises(CheckpointError, match=words):
        weights.load_student(tmp_path)
