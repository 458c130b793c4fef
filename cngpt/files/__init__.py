"""Files that are whole or absent, local or remote: `atomic` writes, `remote` finds and reads, `transfer` copies folders."""

# ruff: noqa: F401
from cngpt.files.atomic import (
    NewFolder,
    atomic_folder,
    atomic_write,
    check_out,
    check_space,
    close_on_disk,
    is_empty,
    replace_folder,
    sync_folder,
    write_json,
    write_text,
    writing,
)
from cngpt.files.remote import (
    BLOCK,
    below,
    exists,
    filesystem,
    is_remote,
    join,
    listing,
    open_read,
    read_json,
    read_object,
    sha256,
    size_of,
    unrelated_files,
)
from cngpt.files.transfer import local_copy, send_folder
