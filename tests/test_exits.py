"""Every network with branches: names, the trunk as it is without, who depends on whom.

The networks are thin forms of the registered ones, of the same classes.
"""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spaced_kd.models import branched_resnet, deit, pit, resnet, small_cnn

CLASSES = 5
IMAGE = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
RESNET = {"blocks": (1, 1, 1, 1), "base_width": 4}
DEIT = {"dim": 12, "depth": 3, "patch_size": 8}
PIT = {"dim": 4, "depths": (1, 2), "heads": (1, 2), "patch_size": 8}


def _with_branches(family):
    return functools.partial(family, branches=True)


# Name -> network without branches, with branches, fields of both, number of exits.
NETWORKS = {
    "resnet": (resnet.ResNet, branched_resnet.BranchedResNet, RESNET, 4),
    "resnet_bottlenecks": (
        resnet.ResNet,
        functools.partial(branched_resnet.BranchedResNet, branch="bottleneck"),
        RESNET,
        4,
    ),
    "deit": (deit.DeiT, _with_branches(deit.DeiT), DEIT, 3),
    "pit": (pit.PiT, _with_branches(pit.PiT), PIT, 3),
    "small_cnn": (
        small_cnn.SmallCNN,
        _with_branches(small_cnn.SmallCNN),
        {"channels": (3, 4, 5)},
        3,
    ),
}


def _plain(name):
    family, _, fields, _ = NETWORKS[name]
    return family(CLASSES, **fields)


def _branched(name):
    _, family, fields, _ = NETWORKS[name]
    return family(CLASSES, **fields)


@functools.cache
def _random(name):
    """Variables of random numbers, so that no head is zero."""
    model = _branched(name)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGE, train=False))
    r = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(r.uniform(-0.2, 0.5, x.shape), jnp.float32)
    variables = jax.tree.map(draw, shapes)
    if "batch_stats" in variables:
        stats = jax.tree.map(lambda x: 1 + jnp.abs(x), variables["batch_stats"])
        variables |= {"batch_stats": stats}
    return variables


def _trunk(tree):
    return {k: v for k, v in tree.items() if not k.startswith("branch")}


@functools.cache
def _compiled(name, train=False):
    model = _branched(name)
    return jax.jit(
        lambda v: model.apply(v, IMAGE, train=train, mutable=["batch_stats"])
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_the_trunk_starts_as_without_branches(name):
    """Same key, same names, same numbers: the arms of an experiment start alike.

    Numbers are compared of the largest tensor of every module: programs that draw them
    all compile for seconds, and so do those of the default kind of key.
    """
    models, key = (_plain(name), _branched(name)), jax.random.key(0, impl="rbg")

    def start(model):
        return model.init(key, IMAGE, train=False)

    plain, branched = (jax.eval_shape(lambda m=m: start(m)) for m in models)
    assert set(plain) == set(branched)
    for part in plain:
        assert _trunk(branched[part]) == plain[part]

    def largest(model):
        params = _trunk(start(model)["params"])
        by_size = functools.partial(max, key=lambda x: x.size)
        return {k: by_size(jax.tree.leaves(v)) for k, v in params.items()}

    ours, expected = jax.jit(lambda: [largest(model) for model in models])()
    chex.assert_trees_all_equal(ours, expected)
    assert any(np.asarray(x).any() for x in ours.values())


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_deepest_exit_answers_as_the_network_without_branches(name, train):
    """No branch touches what the trunk goes on with, nor moves its statistics."""
    variables = _random(name)
    out, moved = _compiled(name, train=train)(variables)
    trunk = {part: _trunk(tree) for part, tree in variables.items()}
    model = _plain(name)
    run = lambda v: model.apply(v, IMAGE, train=train, mutable=["batch_stats"])
    expected, expected_moved = jax.jit(run)(trunk)
    assert expected.branch_logits is None and expected.branch_features is None
    ours = out.logits, out.features, _trunk(moved.get("batch_stats", {}))
    theirs = expected.logits, expected.features, expected_moved.get("batch_stats", {})
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_branches_come_with_every_call_beside_the_deepest_exit(name, train):
    *_, exits = NETWORKS[name]
    out, _ = jax.eval_shape(_compiled(name, train=train), _random(name))
    width = out.features.shape[1]
    assert out.branch_logits.shape == (4, exits - 1, CLASSES)
    assert out.branch_features.shape == (4, exits - 1, width)
    assert {x.dtype for x in jax.tree.leaves(out)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_head_reads_the_features_beside_it(name):
    *_, exits = NETWORKS[name]
    variables = _random(name)
    out, _ = _compiled(name)(variables)
    for number in range(1, exits):
        head = variables["params"][f"branch{number}_head"]
        features = np.asarray(out.branch_features[:, exits - 1 - number], np.float64)
        expected = features @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
        found = out.branch_logits[:, exits - 1 - number]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_deepest_exit_alone_trains_the_trunk_alone(name):
    """The rule that a step relies on when it masks by name (models/base.py)."""
    model, variables = _branched(name), _random(name)

    def loss(params):
        out, _ = model.apply(
            {**variables, "params": params}, IMAGE, train=True, mutable=["batch_stats"]
        )
        return -jax.nn.log_softmax(out.logits)[:, 0].mean()

    grads = jax.jit(jax.grad(loss))(variables["params"])
    for module, leaves in grads.items():
        moved = any(np.asarray(x).any() for x in jax.tree.leaves(leaves))
        assert moved != module.startswith("branch"), module


@pytest.mark.parametrize("name", NETWORKS)
def test_each_branch_has_modules_of_its_own_and_one_place_among_the_outputs(name):
    """Row i of K belongs to branch K - i, and to none of the others' modules."""
    *_, exits = NETWORKS[name]
    variables, run = _random(name), _compiled(name)
    before, _ = run(variables)
    seen = set()
    for module, leaves in variables["params"].items():
        if not module.startswith("branch"):
            continue
        number = int(re.fullmatch(r"branch(\d+)_[a-z0-9]+", module)[1])
        seen.add(number)
        other = jax.tree.map(lambda x: 1.5 * x + 0.1, leaves)
        params = {**variables["params"], module: other}
        after, _ = run({**variables, "params": params})
        changed = np.abs(after.branch_logits - before.branch_logits).max((0, 2)) > 0
        assert np.flatnonzero(changed).tolist() == [exits - 1 - number], module
        np.testing.assert_array_equal(after.logits, before.logits)
    assert seen == set(range(1, exits))


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_and_remat_change_neither_names_nor_types_of_the_outputs(name):
    """Norms, alignments and heads compute in float32, as the deepest exit's do."""
    exact, variables = _branched(name), _random(name)
    model = exact.clone(dtype=jnp.bfloat16, remat=True)
    init = lambda m: jax.eval_shape(
        lambda: m.init(jax.random.key(0), IMAGE, train=False)
    )
    assert init(model) == init(exact)
    run = lambda v: model.apply(
        v, IMAGE, train=True, mutable=["batch_stats"], capture_intermediates=True
    )
    out, state = jax.jit(run)(variables)
    inner = state["intermediates"]
    for module in variables["params"]:
        if re.fullmatch(r"branch\d+_(norm|align|head)", module):
            assert inner[module]["__call__"][0].dtype == jnp.float32, module
    expected, _ = _compiled(name, train=True)(variables)
    for field, ours in out._asdict().items():
        if ours is None:
            continue
        reference = getattr(expected, field)
        assert ours.dtype == jnp.float32
        error = jnp.abs(ours - reference).max() / jnp.abs(reference).max()
        # bfloat16 keeps 8 bits: agreement to a few percent, not to more.
        assert 0 < error < 0.1, field
