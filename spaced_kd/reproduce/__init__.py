"""The paper's tables and figures, made again: what they are, and what ours say."""
