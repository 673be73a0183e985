"""Spaced Knowledge Distillation in JAX: the teacher goes ahead, the student replays."""

__version__ = "0.1.0"


def run(config, workdir):
    """Train what `config` describes in `workdir`; see `spaced_kd.train.run`."""
    # Imported here so that `import spaced_kd` stays quick and starts no backend.
    from spaced_kd import train

    return train.run(config, workdir)


__all__ = ["__version__", "run"]
