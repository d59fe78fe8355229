# Without bytecode each command would compile what it imports, because users cannot write it here.
compile_bytecode() {
    umask 022
    version=$(/usr/lib/hpcc/bin/python -I -c 'import sys; print("%d.%d" % sys.version_info[:2])') || return 0
    /usr/lib/hpcc/bin/python -I -m compileall -q /usr/lib/hpcc/python "/usr/lib/hpcc/lib/python$version" || :
}

# Those that stop.sh stopped, and no other: an installation starts no service.
start_services() {
    [ -d /run/systemd/system ] || return 0
    systemctl daemon-reload || :
    for file in /run/hpcc-upgrade/*; do
        [ -f "$file" ] || continue
        rm -f "$file"
        systemctl start --no-block "${file##*/}" || :
    done
}
