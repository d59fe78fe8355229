"""REAPI v2 as a pure core: canonical encoding and bounded parsing of what is in the key."""

from hpcc.reapi._action import (
    ACTION_FORMAT,
    ActionSpec,
    encode_action,
    image_of_action,
    parse_action,
    salt_of,
)
from hpcc.reapi._command import (
    IMAGE_PROPERTY,
    CommandSpec,
    encode_command,
    image_of_command,
    parse_command,
)
from hpcc.reapi._delta import MAX_INLINE_BLOBS, Delta, apply_delta, check_deltas, make_delta
from hpcc.reapi._digests import digest_from_proto, digest_to_proto
from hpcc.reapi._foreign import ForeignResult, encode_entry_result, parse_foreign_result
from hpcc.reapi._limits import (
    MAX_ACTION_BYTES,
    MAX_COMMAND_BYTES,
    MAX_DIRECTORIES,
    MAX_DIRECTORY_BYTES,
    MAX_TREE_BYTES,
    MAX_TREE_DEPTH,
    ReapiError,
)
from hpcc.reapi._output_tree import encode_output_tree, output_tree_files
from hpcc.reapi._resource import parse_read_name, parse_write_name, read_name, write_name
from hpcc.reapi._result import (
    ResultOutput,
    ResultRecord,
    ResultSignature,
    encode_result,
    parse_result,
)
from hpcc.reapi._signed import (
    MAX_RESULT_SKEW_SECONDS,
    ResultScope,
    ResultTerms,
    check_terms,
    signed_bytes,
)
from hpcc.reapi._tree import (
    DirectoryListing,
    InputTree,
    TreeBase,
    TreeWalk,
    build_tree,
    parse_directory,
)

__all__ = [
    "ACTION_FORMAT",
    "IMAGE_PROPERTY",
    "MAX_ACTION_BYTES",
    "MAX_COMMAND_BYTES",
    "MAX_DIRECTORIES",
    "MAX_DIRECTORY_BYTES",
    "MAX_INLINE_BLOBS",
    "MAX_RESULT_SKEW_SECONDS",
    "MAX_TREE_BYTES",
    "MAX_TREE_DEPTH",
    "ActionSpec",
    "CommandSpec",
    "Delta",
    "DirectoryListing",
    "ForeignResult",
    "InputTree",
    "ReapiError",
    "ResultOutput",
    "ResultRecord",
    "ResultScope",
    "ResultSignature",
    "ResultTerms",
    "TreeBase",
    "TreeWalk",
    "apply_delta",
    "build_tree",
    "check_deltas",
    "check_terms",
    "digest_from_proto",
    "digest_to_proto",
    "encode_action",
    "encode_command",
    "encode_entry_result",
    "encode_output_tree",
    "encode_result",
    "image_of_action",
    "image_of_command",
    "make_delta",
    "output_tree_files",
    "parse_action",
    "parse_command",
    "parse_directory",
    "parse_foreign_result",
    "parse_read_name",
    "parse_result",
    "parse_write_name",
    "read_name",
    "salt_of",
    "signed_bytes",
    "write_name",
]
