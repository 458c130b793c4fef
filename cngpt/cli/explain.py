"""What Hydra, OmegaConf and YAML raise, as one line that names the key and the remedy."""

import re
import sys
from pathlib import Path

import yaml
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from cngpt.cli.compose import config_folders
from cngpt.errors import UserError, nearest
from cngpt.installed import conf_folder
from cngpt.settings import hints_of, keys_of


def explain(error: Exception) -> str | None:
    """One line for what the user can mend; None where it is an error of the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OverrideParseException):
        return unparsable(error.override)
    if isinstance(error, yaml.YAMLError):
        return unreadable_yaml(error)
    if isinstance(error, UnicodeDecodeError):
        return not_utf8()  # None where no file of a configuration is to blame
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = list(error.options or [])
        if choice == "auto":
            return f"{group}=auto: is what happens by itself; leave it out of the file"
        return f"{group}={choice}: no such choice; one of {', '.join(options)}.{nearest(choice, options)}"
    text = " ".join(str(error).split())
    if isinstance(error, ConfigCompositionException):
        if match := re.search(r"Could not override '([^']+)'", text):
            return unknown(match[1])
        if match := re.search(r"Multiple values for ([^ .]+)\.", text):
            return f"{match[1]}: given more than once; a list of values needs -m (a sweep)"
    if isinstance(error, OmegaConfBaseException) and getattr(error, "full_key", None):
        return f"{error.full_key}: {text.split(' full_key:')[0]}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return text
    if isinstance(error, ValueError) and "Config group override" in text:  # how Hydra says that a group was given as null
        given = ", ".join(word for word in sys.argv[1:] if word.endswith("=null"))
        return f"{given}: a group takes the name of a choice, not null"
    return None


def unparsable(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals and (conf_folder() / "task" / f"{override}.yaml").is_file():
        return f"{override}: write task={override} (python run.py --help lists the tasks)"
    if not equals:
        return f"{override}: an option is written key=value (python run.py --help lists them)"
    kinder = "; or put it into a file: prompts_file=..., or give neither and type it" if key == "prompt" else ""
    return f"""{override}: text beyond plain ASCII words needs quotes inside quotes: '{key}="{value.strip(chr(34) + chr(39))}"'{kinder}"""


def unreadable_yaml(error: yaml.YAMLError) -> str:
    mark = getattr(error, "context_mark", None) or getattr(error, "problem_mark", None)
    where = f"{mark.name}, line {mark.line + 1}" if mark else "a configuration file"
    problem = str(getattr(error, "problem", None) or error).split("\n")[0]
    hint = "; indent with spaces" if "\\t" in problem else ""
    if mark and Path(mark.name).is_file():
        lines = Path(mark.name).read_text(encoding="utf-8").splitlines()[: mark.line + 1]
        if full_width := next((n for n, line in enumerate(lines, 1) if re.match(r"\s*[\w.]+：", line)), None):
            where, hint = f"{mark.name}, line {full_width}", "; a full-width ： is no colon"
    return f"{where}: is no YAML ({problem}){hint}; a line reads `key: value`"


def not_utf8() -> str | None:
    """The file that is to blame: the exception does not name it."""
    for folder in config_folders():
        for path in sorted(folder.rglob("*.yaml")):
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                return f"{path}: is no UTF-8 text (byte {error.start}); save it as UTF-8"
    return None


def unknown(key: str) -> str:
    """A group or key that nothing has, with the right word for it."""
    from cngpt import tasks

    task = tasks.task_in(sys.argv[1:])
    rows = list(keys_of(task.Keys))
    here = {name: field for name, _, field in rows}
    for other in tasks.names() if "." not in key else ():
        if key in tasks.find(other).Keys.own_keys() - here.keys():
            return f"{key}: belongs to task={other}; write task={other} {key}=..."
    parent, _, last = key.rpartition(".")
    if renamed := next((cls for _, cls, _ in rows if cls.group == parent and last in cls.renamed), None):
        return renamed.unknown(last)
    if parent in here:
        return f"{key}: {parent} has no keys of its own in this choice; '{parent}={{{last}: ...}}' turns it on with this one"
    hinted = [name for name, field in here.items() if last in hints_of(field) or key in hints_of(field)]
    groups = [path.name for path in conf_folder().iterdir() if path.is_dir()]
    same_ending = [name for name in here if "." in name and name.rpartition(".")[2] == last]
    matches = [*hinted, *same_ending][:1]
    hint = f" Did you mean {matches[0]}?" if matches else nearest(key, [*here, *groups]) or nearest(last, [*here, *groups])
    return f"{key}: no such group or key.{hint} python run.py --help lists them"
