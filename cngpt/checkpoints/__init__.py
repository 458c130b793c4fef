"""Model directories and training checkpoints, read and written here alone.

load, header, find    a model, or what is known of it, from any path      load.py
save, save_state      a model directory                                   model_directory.py
training_checkpoint   a checkpoint of any strategy, in one file (single_file.py) or distributed (distributed.py)
distributed_write     parts of tensors from many processes; xla.py cuts those of torch_xla
"""

from cngpt.checkpoints.load import Header, find, header, load, newest_run
from cngpt.checkpoints.model_directory import is_model_directory, save, save_state

__all__ = ["Header", "find", "header", "is_model_directory", "load", "newest_run", "save", "save_state"]
