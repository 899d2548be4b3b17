"""``python -m fastact.bench``: the same as ``fastact bench``."""

from .cli import bench

bench(prog_name="fastact bench")
