"""Debian's rules_cc is too new for its Bazel 4.2.3: the rules that Bazel itself brings will do."""

cc_binary = native.cc_binary
cc_library = native.cc_library
cc_import = native.cc_import
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
objc_library = native.objc_library
