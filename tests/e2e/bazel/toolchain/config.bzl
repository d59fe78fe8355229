"""The compiler of the image, not what Bazel finds on the machine that it runs on."""

load("@bazel_tools//tools/build_defs/cc:action_names.bzl", "ACTION_NAMES")
load(
    "@bazel_tools//tools/cpp:cc_toolchain_config_lib.bzl",
    "feature",
    "flag_group",
    "flag_set",
    "tool_path",
)

_TOOLS = {
    "ar": "ar",
    "cpp": "cpp",
    "gcc": "gcc",
    "gcov": "gcov",
    "ld": "ld",
    "nm": "nm",
    "objdump": "objdump",
    "strip": "strip",
}

def _flags(name, actions, flags):
    return feature(
        name = name,
        enabled = True,
        flag_sets = [flag_set(actions = actions, flag_groups = [flag_group(flags = flags)])],
    )

def _config_impl(ctx):
    return cc_common.create_cc_toolchain_config_info(
        ctx = ctx,
        toolchain_identifier = "image-gcc",
        host_system_name = "local",
        target_system_name = "local",
        target_cpu = "k8",
        target_libc = "unknown",
        compiler = "gcc",
        abi_version = "unknown",
        abi_libc_version = "unknown",
        tool_paths = [tool_path(name = n, path = "/usr/bin/" + p) for n, p in _TOOLS.items()],
        cxx_builtin_include_directories = ["/usr/include", "/usr/lib/gcc"],
        features = [
            _flags(
                "image_compile_flags",
                [ACTION_NAMES.c_compile, ACTION_NAMES.cpp_compile],
                # System headers keep the names under which the directories above know them.
                ["-fno-canonical-system-headers", "-Wall"],
            ),
            _flags("image_link_flags", [ACTION_NAMES.cpp_link_executable], ["-lstdc++"]),
        ],
    )

cc_toolchain_config = rule(implementation = _config_impl, attrs = {}, provides = [CcToolchainConfigInfo])
