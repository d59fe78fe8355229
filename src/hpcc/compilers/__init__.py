"""What compilers' command lines, sources and dependency files mean. Pure: bytes in, values out."""

from hpcc.compilers._assembler import Directives, read_assembler, read_statements
from hpcc.compilers._depfile import (
    MAX_DEPFILE_BYTES,
    DepRule,
    escape_name,
    parse_depfile,
    prerequisites,
    render_depfile,
)
from hpcc.compilers._gnu_flags import GNU_FLAGS
from hpcc.compilers._guest import (
    INJECTED,
    GuestMap,
    NotPortableError,
    as_text,
    client_depfile,
    guest_arguments,
    guest_text,
)
from hpcc.compilers._inputs import files_looked_for
from hpcc.compilers._invocation import (
    DepMode,
    Invocation,
    Language,
    is_cxx_driver,
    read_invocation,
)
from hpcc.compilers._response import MAX_RESPONSE_BYTES, expand_responses, split_response
from hpcc.compilers._scan import (
    HAZARD_REASONS,
    RESOLVABLE,
    Hazard,
    Scan,
    scan_arguments,
    scan_source,
)
from hpcc.compilers._share import (
    DEBUG_ROOT,
    ROOT_MARK,
    canonical_arguments,
    is_plain_root,
    prefix_maps,
    under_root,
    why_private,
)
from hpcc.compilers._share_text import mark_depfile, mark_text, render_depfile_for, render_text
from hpcc.compilers._side import PLAIN, SideFile, Written, files_written
from hpcc.compilers._spec import (
    ASKED_CLANG,
    ASKED_GCC,
    CLANG_MAJORS,
    GCC_MAJORS,
    Arity,
    Bypass,
    Effect,
    Flag,
    FlagSpec,
    FlagTable,
    Operand,
)
from hpcc.compilers._specs import is_tame
from hpcc.compilers._versions import check_versions

__all__ = [
    "ASKED_CLANG",
    "ASKED_GCC",
    "CLANG_MAJORS",
    "DEBUG_ROOT",
    "GCC_MAJORS",
    "GNU_FLAGS",
    "HAZARD_REASONS",
    "INJECTED",
    "MAX_DEPFILE_BYTES",
    "MAX_RESPONSE_BYTES",
    "PLAIN",
    "RESOLVABLE",
    "ROOT_MARK",
    "Arity",
    "Bypass",
    "DepMode",
    "DepRule",
    "Directives",
    "Effect",
    "Flag",
    "FlagSpec",
    "FlagTable",
    "GuestMap",
    "Hazard",
    "Invocation",
    "Language",
    "NotPortableError",
    "Operand",
    "Scan",
    "SideFile",
    "Written",
    "as_text",
    "canonical_arguments",
    "check_versions",
    "client_depfile",
    "escape_name",
    "expand_responses",
    "files_looked_for",
    "files_written",
    "guest_arguments",
    "guest_text",
    "is_cxx_driver",
    "is_plain_root",
    "is_tame",
    "mark_depfile",
    "mark_text",
    "parse_depfile",
    "prefix_maps",
    "prerequisites",
    "read_assembler",
    "read_invocation",
    "read_statements",
    "render_depfile",
    "render_depfile_for",
    "render_text",
    "scan_arguments",
    "scan_source",
    "split_response",
    "under_root",
    "why_private",
]
