"""From words to a configuration: where its files lie, what its resolvers mean, Hydra's composition."""

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cngpt.installed import PACKAGE, conf_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig


def composed(words: list[str]) -> "tuple[DictConfig, DictConfig]":
    """(the configuration of a command, what Hydra says of it)."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import open_dict

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        cfg = compose("config", words, return_hydra_config=True)
    with open_dict(cfg):
        return cfg, cfg.pop("hydra")


def without_auto(words: list[str]) -> list[str]:
    """trainer=auto is what the defaults list does by itself: the word goes; in a sweep the preset stands instead."""
    from cngpt.plan.hardware import best_trainer

    kept = []
    for word in words:
        key, _, value = word.partition("=")
        if key != "trainer" or "auto" not in value.split(","):
            kept.append(word)
        elif value != "auto":
            kept.append(
                f"trainer={','.join(best_trainer(None, words, config_folders()) if v == 'auto' else v for v in value.split(','))}"
            )
    return kept


def config_folders() -> list[Path]:
    """Where configuration files may lie: the user's own folders first."""
    folders = []
    for word, following in itertools.pairwise([*sys.argv[1:], ""]):
        if word.startswith(("--config-dir", "-cd")):
            folders.append(Path(word.partition("=")[2] or following))
        elif word.startswith("hydra.searchpath="):
            folders += [Path(part.removeprefix("file://")) for part in word.partition("=")[2].strip("[]").split(",")]
    return [*folders, conf_folder()]


def register_resolvers() -> None:
    """`${bundled:path}`: a file of the package. `${needed:key}`: no default. `${best_trainer:hardware}`, `${rules_for:data}`: choices of
    the defaults list."""
    from omegaconf import OmegaConf

    from cngpt.plan.hardware import best_trainer
    from cngpt.tasks import MISSING

    def rules_for(data: str) -> str:
        return data if any((folder / "clean" / f"{data}.yaml").is_file() for folder in config_folders()) else "basic"

    def trainer_for(hardware: str) -> str:
        return best_trainer(hardware, sys.argv[1:], config_folders())

    OmegaConf.register_new_resolver("best_trainer", trainer_for, replace=True)
    OmegaConf.register_new_resolver("rules_for", rules_for, replace=True)
    OmegaConf.register_new_resolver("needed", lambda key: MISSING, replace=True)
    OmegaConf.register_new_resolver("bundled", lambda path: str(PACKAGE / path), replace=True)
