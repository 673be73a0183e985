"""Spaced Knowledge Distillation in JAX: the teacher goes ahead, the student replays."""

__version__ = "0.1.0"


def run(config, workdir):
    """Train what `config` describes in `workdir`; see `spaced_kd.train.run`."""
    # Imported here so that `import spaced_kd` stays quick and starts no backend.
    from spaced_kd import notebook, train

    notebook.show_log()
    return train.run(config, workdir)


def load_student(folder):
    """Return (model, variables) of an export; see `spaced_kd.weights.load_student`."""
    from spaced_kd import weights

    return weights.load_student(folder)


__all__ = ["__version__", "load_student", "run"]
