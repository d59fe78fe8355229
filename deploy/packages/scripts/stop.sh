# No service runs on the files of two versions: each one that runs ends before a file is replaced. A worker
# lets its compiles finish first. hpcc's package starts them again when all files are there (start.sh).
stop_services() {
    [ -d /run/systemd/system ] || return 0
    units=$(systemctl list-units --plain --no-legend --state=active,activating,reloading,deactivating 'hpcc-*.service' | cut -d ' ' -f 1)
    for unit in $units; do
        [ "$1" = remember ] || continue
        mkdir -p -m 700 /run/hpcc-upgrade
        : > "/run/hpcc-upgrade/$unit"
    done
    [ -z "$units" ] || systemctl stop $units
}

# The package manager does not know of these files, and would leave their directories.
remove_bytecode() {
    find /usr/lib/hpcc -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || :
}
