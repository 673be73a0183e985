"""What the library costs, in ratios measured in one run: `python -m spaced_kd.bench`.

Nothing here takes part in training.
"""
