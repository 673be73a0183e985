"""The README.md beside exported weights: what they are, how good, how to use them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from spaced_kd.config import SELF_TAUGHT, TWO_WAY, WITH_BRANCHES, WITHOUT_TEACHER
from spaced_kd.results import LAST, NetworkResult, Results
from spaced_kd.types import Variables

_ALL_EXITS = """
Those are the logits of the deepest of {count} exits, {deepest}. All exits, from the
deepest down to exit1, and the ensemble, which is the mean of their logits:

```python
import jax.numpy as jnp

outputs = model.apply(variables, images, train=False)
exits = jnp.concatenate([outputs.logits[:, None], outputs.branch_logits], 1)
ensemble = exits.mean(1)
```
"""

_ONE_EXIT = """
Those are the logits of the deepest of {count} exits, {deepest}. Nothing trained the
others, `branch_logits`.
"""

_PAGE = """---
library_name: spaced_kd
pipeline_tag: image-classification
tags: [image-classification, knowledge-distillation, jax, flax]
---

# {model}, student `{student}`, {dataset}

{sentence}

| | |
|---|---|
{facts}

## Accuracy

{accuracy}

## Use

```python
import spaced_kd

model, variables = spaced_kd.load_student("FOLDER")
logits = model.apply(variables, images, train=False).logits
```
{use_of_exits}
`images`: [b, {shape}] float32. In the evaluations of the run test images were
{resizing}, then scaled to [0, 1], minus mean, divided by standard deviation (per
channel):

    mean = {mean}
    std = {std}

`student.safetensors` holds the student alone, as float32 tensors laid out and named as
in PyTorch{names}.

## Licence

The code of spaced_kd is under Apache-2.0, which says nothing about these weights.
Whoever publishes them chooses their licence, and the terms of the data set ({dataset})
may bind what they are used for. Put the licence you choose here.

## Training configuration of this student

```json
{config}
```
"""


def text(
    about: Mapping[str, Any],
    config: Mapping[str, Any],
    results: Results,
    variables: Variables,
) -> str:
    """Return the card.

    Args:
      about: what `export.export_student` stores in the weights' metadata.
      config: "config" of the run's `config.json`.
      results: of the run.
      variables: of the student.
    """
    student = config["students"][about["student"]]
    facts = _facts(about, config, student, results, variables)
    return _PAGE.format(
        model=about["model"],
        student=about["student"],
        dataset=config["data"]["name"],
        sentence=_sentence(about, config, student),
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        accuracy=_accuracy(about, results),
        use_of_exits=_use_of_exits(about, student),
        shape=", ".join(map(str, about["image_shape"])),
        resizing=_resizing(about),
        mean=about["mean"],
        std=about["std"],
        names=_names(about),
        config=json.dumps(student, indent=2, sort_keys=True),
    )


def _sentence(about, config, student) -> str:
    if student["method"] == "hard":
        return "Trained on the labels alone, without a teacher."
    how = f"(plan `{student['plan']}`, method `{student['method']}`)"
    if student["method"] in WITH_BRANCHES:
        return f"Its own teacher: the deepest exit taught the others {how}."
    if student["method"] in SELF_TAUGHT:
        return f"Its own teacher: it learned from what it had answered before {how}."
    teacher = config["teacher"]
    when = "in the same run"
    if teacher.get("stage"):
        when = f"before, as `{teacher['stage']}`"
    if student["method"] not in TWO_WAY:
        return f"Learned from a {teacher['model']} that was trained {when} {how}."
    if student["method"] not in WITHOUT_TEACHER:
        return (
            f"Learned with a head, not in this file, on a {teacher['model']} that was "
            f"trained {when} {how}."
        )
    peer = student["dml_peer"] or student["model"]
    return f"Learned with a {peer}, its peer, which is not in this file {how}."


def _use_of_exits(about: Mapping[str, Any], student: Mapping[str, Any]) -> str:
    if not about["exits"]:
        return ""
    page = _ALL_EXITS if student["method"] in WITH_BRANCHES else _ONE_EXIT
    return page.format(count=len(about["exits"]), deepest=about["exits"][0])


def _names(about: Mapping[str, Any]) -> str:
    """Return whose names the tensors have, see `torch_names`."""
    if not about["model"].startswith(("resnet", "deit", "pit")):
        return ""
    branches = ""
    if about["exits"]:
        resnet = about["model"].startswith("resnet")
        whose = "those of the Self-Distillation release" if resnet else "this package's"
        branches = f"; those of branches are {whose}"
    return f" (torchvision's or timm's names{branches})"


def _resizing(about: Mapping[str, Any]) -> str:
    height, width, _ = about["image_shape"]
    how = about["interpolation"]
    if about["eval_resize"]:
        return (
            f"resized to {about['eval_resize']} pixels on their shorter side ({how}), "
            f"of which the centre of {height}x{width} was cut out"
        )
    if about["image_size"]:
        return f"resized to {height}x{width} pixels ({how})"
    return f"taken at their own size of {height}x{width} pixels"


def _facts(about, config, student, results: Results, variables) -> dict[str, Any]:
    net = results.students[about["student"]]
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    epochs = f"{student['epochs_factor'] * config['num_epochs']:g}"
    taught = student["method"] not in WITHOUT_TEACHER
    taught = taught and not config["teacher"].get("stage")
    options = ", ".join(f"{k} {v}" for k, v in sorted(about["arch"].items()))
    return {
        "parameters": f"{count:,}",
        "classes": about["num_classes"],
        "architecture options": options or "none",
        "plan": student["plan"],
        "space interval": net.interval() or "none",
        "compat": config["compat"],
        f"epochs of the {'teacher' if taught else 'stream'}": epochs,
        "batch": config["data"]["batch_size"],
        "weights": f"{about['which']} of seed {about['seed']}",
        "updates behind them": f"{about['step']:,} of {net.updates:,}",
        "seeds of the run": config["num_seeds"],
        "spaced_kd": about["version"],
    }


def _accuracy(about: Mapping[str, Any], results: Results) -> str:
    net = results.students[about["student"]]
    lines = [
        "| top-1 accuracy on the test set, % | over seeds |",
        "|---|---|",
        f"| last evaluation | {net.acc1_last} |",
        f"| mean of the last {LAST} evaluations | {net.acc1_mean_last5} |",
        f"| best evaluation (chosen on the test set: optimistic) | {net.acc1_best} |",
        "",
        f"Mean{' ± standard deviation' * (len(net.seeds) > 1)}, n={len(net.seeds)}. "
        f"{_own(about, net)}",
    ]
    if about["exits"]:
        lines += ["", f"All of these are of `{about['quoted']}`.", *_exit_lines(net)]
    if not net.complete:
        lines += ["", "The run was not finished when this was written."]
    return "\n".join(lines)


def _exit_lines(net: NetworkResult) -> Iterable[str]:
    if net.exits:
        yield ""
        yield f"| exit | last, % | mean of the last {LAST}, % | best (optimistic), % |"
        yield "|---|---|---|---|"
    for name, found in net.exits.items():
        yield (
            f"| {name} | {found.acc1_last} | {found.acc1_mean_last5} | "
            f"{found.acc1_best} |"
        )


def _own(about: Mapping[str, Any], net: NetworkResult) -> str:
    if about["which"] == "best":
        value = about["acc1"]
    elif about["seed"] in net.seeds and about["step"] >= net.updates:
        value = net.acc1_last.per_seed[net.seeds.index(about["seed"])]
    else:
        value = None
    if value is None:
        return "These very weights have not been evaluated."
    return f"These very weights: {value:.2f}."
